//! Bytes of nobody's making: no parser panics on them.

use pmx::app::declaration::{self, Document};
use pmx::app::{cron::Cron, dotenv, dump, words::words, zone::Zone};
use pmx::protocol::{Frames, Message, Request};

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// What parsers are made for; its bytes are what random ones are mixed with.
const SAMPLES: [&str; 9] = [
    include_str!("../examples/processes.json"),
    "{apps: [{script: 'a', env: {A: \"\\u00e9\\x41\"}, instances: 0x10, /* c */ args: '[\"x\"]',},]} // end",
    "apps:\n  - &a {name: web, script: a.js, env: {A: 1}}\n  - <<: *a\n    name: other\n    kill_timeout: 10s\n",
    "export A='1'\nB=\"x\\n\" # c\nC=`y`\n",
    "[{\"_pmx\":{\"format\":1,\"instance\":0,\"up\":true,\"app\":{}},\"name\":\"a\"}]\n",
    "[{\"name\":\"a\",\"pm_exec_path\":\"/a\",\"pm_cwd\":\"/\",\"env\":{\"A\":\"1\"},\"increment_var\":\"A\",\"NODE_APP_INSTANCE\":3}]",
    "{\"v\":1,\"id\":1,\"verb\":\"stop\",\"targets\":[\"all\"]}\n{\"v\":1,\"id\":2,\"verb\":\"list\"}\n",
    "*/5 0-23/2 L * MON#2",
    "CET-1CEST,M3.5.0,M10.5.0/3",
];

#[test]
fn ten_thousand_random_byte_strings_panic_no_parser() {
    let mut random = Random(2);
    let (mut read, mut declared, mut crons, mut frames) = (0, 0, 0, 0);
    for _ in 0..10_000 {
        let mut bytes = SAMPLES[random.below(SAMPLES.len())].as_bytes().to_vec();
        match random.below(4) {
            0 => bytes = (0..random.below(200)).map(|_| random.below(256) as u8).collect(),
            1 => bytes.truncate(random.below(bytes.len() + 1)),
            _ => {}
        }
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() + 1);
            match random.below(3) {
                0 => bytes.insert(at, random.below(256) as u8),
                1 => bytes.insert(at, b"{}[]\"':,#&*\\\n-0"[random.below(15)]),
                _ => drop(bytes.drain(at..bytes.len().min(at + random.below(9)))),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let documents = [
            Document::json(&text),
            #[cfg(feature = "yaml")]
            Document::yaml(&text),
        ];
        for document in documents.into_iter().flatten() {
            read += 1;
            if let Ok(mut found) = declaration::read("f", &document) {
                declared += 1;
                found.choose_env("f", "production");
            }
        }
        let _ = dotenv::read(&text);
        let _ = words(&text);
        let _ = dump::read(&bytes);
        let _ = Zone::rule(&text);
        if let Ok(cron) = Cron::parse(&text) {
            crons += 1;
            let _ = cron.next(random.below(2_000_000_000) as i64);
        }
        let mut lines = Frames::new(64);
        for part in bytes.chunks(1 + random.below(50)) {
            lines.push(part);
            while let Ok(Some(line)) = lines.next_line() {
                frames += usize::from(serde_json::from_slice::<Request>(line).is_ok());
                let _ = serde_json::from_slice::<Message>(line);
            }
        }
    }
    // Not everything was rubbish: it went some way into each of them, YAML or not.
    assert!(read > 500 && declared > 200 && crons > 50 && frames > 50, "{read} {declared} {crons} {frames}");
}
