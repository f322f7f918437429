// Drives the dashboard in a real browser, as a person would. Arguments: its address, the token, the file with the
// token, the name of an app that serves. With SHOTS=<folder> it also takes pictures. Exits with 0 if all went well.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const [address, token, file, app] = process.argv.slice(2);
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const program = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((one) => fs.existsSync(one));

async function main() {
  const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    const context = await browser.newContext({ colorScheme: "dark", viewport: { width: 1440, height: 900 } });
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    const elsewhere = [];
    const errors = [];
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(`${address}/`) && !url.startsWith("data:")) elsewhere.push(url);
    });
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => {
      // A wrong token is told by the server, and the browser tells of that.
      if (message.type() === "error" && !/401/.test(message.text())) errors.push(message.text());
    });
    const shot = async (name) => {
      if (process.env.SHOTS) await page.screenshot({ path: path.join(process.env.SHOTS, `${name}.png`) });
    };
    const check = async (what) => {
      await page.evaluate(axe);
      const found = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
      const grave = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
      const shown = grave.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("\n")}`);
      assert.deepEqual(shown, [], `${what}: an accessibility fault`);
    };

    // The door.
    await page.goto(`${address}/dashboard`);
    await page.waitForSelector("#door[open]");
    await check("the door");
    await shot("door");
    await page.fill("#token", "f".repeat(64));
    await page.press("#token", "Enter");
    await page.waitForFunction(() => /not the token/.test(document.querySelector("#door-fault").textContent));
    await page.fill("#token", token);
    await page.click("#key button");
    await page.waitForSelector("#door:not([open])", { state: "attached" });

    // What runs.
    const row = page.locator("#rows tr", { has: page.locator(`button.name:text-is("${app}")`) });
    await row.waitFor();
    await page.waitForFunction(() => document.querySelector("#link").classList.contains("live"));
    assert.match(await row.locator(".status").innerText(), /online/);
    await page.waitForFunction(() => [...document.querySelectorAll("#rows .spark path:not(.area)")].some((one) => /L/.test(one.getAttribute("d"))));
    await page.fill("#filter", "no such app");
    await page.waitForFunction(() => document.querySelectorAll("#rows tr").length === 0);
    await page.fill("#filter", "");
    await row.waitFor();
    await check("the list");
    await shot("list-dark");

    // One app, by the keyboard.
    await row.locator("button.name").focus();
    await page.keyboard.press("Enter");
    await page.waitForSelector("#detail:not([hidden])");
    await page.waitForFunction(() => [...document.querySelectorAll("#detail .chart path")].every((one) => /L/.test(one.getAttribute("d"))));
    await page.waitForFunction(() => /Script/.test(document.querySelector("#detail dl").innerText));
    assert.ok(await page.locator(".workers li").count() >= 1);

    // What was before this page was opened comes from the server.
    for (const [text, span] of [["24 h", "day"], ["1 h", "hour"]]) {
      const asked = page.waitForResponse((answer) => answer.url().includes(`/processes/${app}/history?span=${span}`));
      await page.locator("#detail").getByRole("button", { name: text, exact: true }).click();
      const told = await (await asked).json();
      assert.ok(told.processes.length >= 1 && told.processes.every((one) => one.at.length >= 1 && one.memory[0] > 0), JSON.stringify(told));
      await page.waitForFunction((ago) => [...document.querySelectorAll("#detail .chart")].every((one) => one.getAttribute("aria-label").includes(ago)), span === "day" ? "1 d 0 h" : "1 h");
    }
    await page.locator("#detail").getByRole("button", { name: "5 min", exact: true }).click();

    // The machine: what the server knows of it, and what is seen here.
    const machine = page.waitForResponse((answer) => answer.url().includes("/host/history?span=day"));
    await page.locator(".machine").getByRole("button", { name: "24 h", exact: true }).click();
    const past = await (await machine).json();
    assert.ok(past.at.length >= 1 && past.memory[0] > 1e6 && past.load[0] != null, JSON.stringify(past));
    await page.waitForFunction(() => [...document.querySelectorAll(".machine .chart")].every((one) => /this machine over 1 d 0 h: now [0-9]/.test(one.getAttribute("aria-label"))));
    await page.waitForFunction(() => [...document.querySelectorAll(".machine .chart path")].filter((one) => /^M(19[5-9]|20[0-5])/.test(one.getAttribute("d"))).length === 3);
    await page.locator(".machine").getByRole("button", { name: "5 min", exact: true }).click();
    await page.waitForFunction(() => [...document.querySelectorAll(".machine .chart path")].every((one) => /L/.test(one.getAttribute("d"))));

    // Its logs.
    await page.waitForFunction(() => document.querySelectorAll("#lines li").length > 1);
    await page.keyboard.press("/");
    await page.keyboard.type("needle");
    await page.waitForFunction(() => {
      const shown = [...document.querySelectorAll("#lines li:not([hidden])")];
      return shown.length > 0 && shown.every((one) => one.querySelector("mark")?.textContent === "needle");
    });
    // Old files, too.
    const searched = page.waitForResponse((answer) => answer.url().includes("/logs?search=needle"));
    await page.keyboard.press("Enter");
    const told = await (await searched).json();
    assert.ok(told.lines.some((line) => line.text === "an old needle"));
    await page.waitForFunction(() => [...document.querySelectorAll("#lines li:not([hidden])")].some((one) => one.textContent.includes("an old needle")));
    // There is too much of it, and it is told how far back that is.
    assert.equal(told.complete, false);
    await page.waitForFunction(() => /older than/.test(document.querySelector("#note").innerText));
    await check("a search that is not over");
    await shot("search");
    const further = page.waitForResponse((answer) => answer.url().includes(`until=${encodeURIComponent(told.read_back_to)}`));
    await page.getByRole("button", { name: "Look further back" }).click();
    await further;
    await page.waitForFunction(() => !/Looking/.test(document.querySelector("#note").innerText));
    assert.ok(await page.locator("#lines li", { hasText: "an old needle" }).count() <= 1, "none comes twice");
    const followed = page.waitForResponse((answer) => answer.url().includes("/api/v1/logs?"));
    await page.fill("#search", "");
    await followed;
    await page.waitForSelector("#note", { state: "hidden" });
    await page.click("#pause");
    await page.waitForFunction(() => document.querySelector("#pause").getAttribute("aria-pressed") === "true");
    await page.click("#pause");
    await check("one app, dark");
    await shot("app-dark");
    await page.click("#theme");
    await check("one app, light");
    await shot("app-light");

    // Reload, while others use it.
    console.log("reload");
    for (let round = 0; round < 2; round += 1) {
      // It is told for a few seconds only, in which a busy machine may still be drawing the picture.
      const told = page.waitForFunction((name) => [...document.querySelectorAll(".toast strong")].some((one) => one.textContent.startsWith(`${name} reloaded`)), app);
      await row.locator("button[data-act=reload]").click();
      await page.waitForSelector("#toasts progress");
      if (round === 0) await shot("reload");
      await told;
      await page.evaluate(() => document.querySelectorAll(".toast button").forEach((one) => one.click()));
      await page.waitForFunction(() => document.querySelectorAll(".toast").length === 0);
    }
    console.log("reloaded");
    // Whoever uses it has to be told that it is over before it is stopped.
    await new Promise((done) => process.stdin.once("data", done));

    await row.locator("button[data-act=stop]").click();
    await page.waitForSelector("#sure[open]");
    await check("a question");
    await page.click("#sure-yes");
    await row.locator("button[data-act=start]").waitFor();
    assert.match(await row.locator(".status").innerText(), /stopped/);
    await row.locator("button[data-act=start]").click();
    await row.locator("button[data-act=stop]").waitFor();
    await page.keyboard.press("Escape");
    await page.waitForSelector("#detail", { state: "hidden" });
    await shot("list-light");

    // A phone.
    await page.setViewportSize({ width: 390, height: 844 });
    await row.waitFor();
    const fits = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
    assert.ok(fits, "nothing is wider than the phone");
    await check("a phone");
    await shot("phone-light");
    await row.locator("button.name").click();
    await page.waitForSelector("#detail:not([hidden])");
    await check("one app on a phone");
    await shot("phone-app");
    await page.click("#detail button[aria-label=Close]");
    await page.evaluate(() => document.querySelector("#theme").click());
    await shot("phone-dark");

    // The token expires.
    fs.writeFileSync(file, `${token} 1\n`);
    // The page may notice by itself, and then nobody comes past the door.
    await row.locator("button[data-act=restart]").click({ timeout: 1_000 }).catch(() => {});
    await page.waitForFunction(() => /expired/.test(document.querySelector("#door-fault").textContent));

    assert.deepEqual(elsewhere, [], "everything is from the page's own origin");
    assert.deepEqual(errors, []);
    console.log("done");
  } finally {
    await browser.close();
  }
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
