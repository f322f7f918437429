//! Static files as an app: what is served, and what never is.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::{DEADLINE, Home, free_port, get, wait_until};

/// What comes back for bytes as they are, until the server closes.
fn raw(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ask(port: u16, target: &str, headers: &str) -> String {
    raw(port, &format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"))
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

fn site(home: &Home, more: &[&str]) -> u16 {
    home.file("site/index.html", "<h1>home</h1>");
    home.file("site/a b.txt", "0123456789");
    home.file("site/docs/index.html", "docs");
    home.file("site/app.js", "code");
    home.file("site/.env", "SECRET");
    home.file("secret", "SECRET");
    let _ = symlink("../secret", home.dir().join("site/out"));
    let _ = symlink("/etc", home.dir().join("site/etc"));
    let _ = symlink("app.js", home.dir().join("site/link.js"));
    let port = free_port();
    let port_text = port.to_string();
    let args: Vec<&str> = ["serve", "site", &port_text].iter().chain(more).copied().collect();
    home.pmx(&args).ok();
    wait_until("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    port
}

#[test]
fn files_are_served_as_an_app() {
    let home = Home::new();
    let port = site(&home, &[]);
    assert_eq!(home.process(0)["name"], format!("static-page-server-{port}"));
    let page = get(port, "/").unwrap();
    assert_eq!((page.status, page.body.as_str()), (200, "<h1>home</h1>"));
    assert!(page.head.contains("Content-Type: text/html; charset=utf-8"), "{}", page.head);
    assert!(page.head.contains("Access-Control-Allow-Origin: *"), "{}", page.head);
    assert_eq!(get(port, "/a%20b.txt?x=1").unwrap().body, "0123456789");
    assert_eq!(get(port, "/link.js").unwrap().body, "code", "a link inside is as good as a file");
    assert!(get(port, "/docs").unwrap().head.contains("Location: /docs/\r\n"));
    assert_eq!(get(port, "/docs/").unwrap().body, "docs");
    let missing = get(port, "/missing").unwrap();
    assert_eq!((missing.status, missing.body.as_str()), (404, "404 Not Found\n"));
    home.file("site/404.html", "nothing here");
    let missing = get(port, "/missing").unwrap();
    assert_eq!((missing.status, missing.body.as_str()), (404, "nothing here"));
    let head = raw(port, "HEAD /a%20b.txt HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(head.contains("Content-Length: 10\r\n") && body(&head).is_empty(), "{head}");
    let two = raw(port, "GET /app.js HTTP/1.1\r\n\r\nGET /docs/ HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(two.contains("\r\n\r\ncodeHTTP/1.1 200") && two.ends_with("docs"), "{two}");
    home.pmx(&["serve", "nowhere"]).failed();
    home.pmx(&["serve", "site", "x"]).failed();
    home.pmx(&["serve", "site", "--basic-auth-username", "x"]).failed();
}

#[test]
fn nothing_outside_of_the_folder_and_nothing_hidden_is_served() {
    let home = Home::new();
    let port = site(&home, &["--spa"]);
    for (target, expected) in [
        ("/../secret", 403),
        ("/docs/../../secret", 403),
        ("/%2e%2e/secret", 403),
        ("/..%2fsecret", 400),
        ("/out", 403),
        ("/etc/passwd", 403),
        ("/.env", 404),
        ("/%2eenv", 404),
        ("/a%00.txt", 400),
        ("/%", 400),
        ("/proc/self/environ", 200),
        ("//etc/passwd", 403),
        ("http://x/../secret", 403),
    ] {
        let answer = ask(port, target, "");
        assert_eq!(status(&answer), expected, "{target}");
        assert!(!answer.contains("SECRET") && !answer.contains("root:"), "{target}: {answer}");
    }
    assert_eq!(body(&ask(port, "/some/route", "")), "<h1>home</h1>");
    assert_eq!(body(&ask(port, "/some/app.js", "")), "code");
    assert_eq!(status(&raw(port, "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")), 405);
    assert_eq!(status(&raw(port, "nonsense\r\n\r\n")), 400);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(9_000));
    assert_eq!(status(&raw(port, &long)), 431);
    // A folder whose name looks like a host is no other site.
    fs::create_dir_all(home.dir().join("site/evil.com")).unwrap();
    assert!(ask(port, "//evil.com", "").contains("Location: /evil.com/\r\n"));
}

#[test]
fn parts_and_what_is_known_already() {
    let home = Home::new();
    let port = site(&home, &[]);
    for (range, expected, part) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=-2", 206, "89"),
        ("bytes=-99", 206, "0123456789"),
        ("bytes=0-99", 206, "0123456789"),
        ("bytes=0-1,3-4", 200, "0123456789"),
        ("bytes=10-", 416, "416 Range Not Satisfiable\n"),
        ("bytes=0-18446744073709551615", 206, "0123456789"),
        ("bytes=-0", 416, "416 Range Not Satisfiable\n"),
    ] {
        let answer = ask(port, "/a%20b.txt", &format!("Range: {range}\r\n"));
        assert_eq!((status(&answer), body(&answer)), (expected, part), "{range}");
    }
    assert!(ask(port, "/a%20b.txt", "Range: bytes=2-4\r\n").contains("Content-Range: bytes 2-4/10\r\n"));
    let answer = ask(port, "/app.js", "");
    let tag = answer.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let again = ask(port, "/app.js", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((status(&again), body(&again)), (304, ""));
    home.file("site/app.js", "longer code");
    assert_eq!(status(&ask(port, "/app.js", &format!("If-None-Match: {tag}\r\n"))), 200);
}

#[test]
fn a_password_opens_the_door_and_is_shown_to_nobody() {
    let home = Home::new();
    let port = site(&home, &["--basic-auth-username", "ann", "--basic-auth-password", "open-sesame"]);
    let answer = ask(port, "/", "");
    assert!(status(&answer) == 401 && answer.contains("WWW-Authenticate: Basic realm="), "{answer}");
    assert_eq!(status(&ask(port, "/missing", "Authorization: Basic YW5uOm9wZW4=\r\n")), 401);
    let right = "Authorization: Basic YW5uOm9wZW4tc2VzYW1l\r\n";
    assert_eq!(body(&ask(port, "/", right)), "<h1>home</h1>");
    for command in [&["jlist"][..], &["describe", "0"], &["prettylist"], &["report"], &["history"]] {
        assert!(!home.pmx(command).ok().out.contains("sesame"), "{command:?}");
    }
    home.pmx(&["restart", "0"]).ok();
    wait_until("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(status(&ask(port, "/", "")), 401);
}

#[test]
fn clients_that_are_slow_hold_up_nobody() {
    let home = Home::new();
    let port = site(&home, &[]);
    home.file("site/large.bin", &"x".repeat(20 << 20));
    // Asks and does not read.
    let mut deaf = TcpStream::connect(("127.0.0.1", port)).unwrap();
    deaf.write_all(b"GET /large.bin HTTP/1.1\r\n\r\n").unwrap();
    // Never finishes to ask.
    let mut slow = TcpStream::connect(("127.0.0.1", port)).unwrap();
    slow.write_all(b"GET / HT").unwrap();
    slow.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(get(port, "/").unwrap().status, 200);
    slow.set_nonblocking(true).unwrap();
    let still = slow.read(&mut [0; 16]).expect_err("it was given up before others had their answer");
    assert_eq!(still.kind(), ErrorKind::WouldBlock);
    slow.set_nonblocking(false).unwrap();
    assert_eq!(ask(port, "/large.bin", "").len() / (20 << 20), 1);
    let given_up = slow.read(&mut [0; 16]);
    assert!(
        given_up.as_ref().map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |n| *n == 0),
        "{given_up:?}"
    );
    assert_eq!(home.status(0), "online");
}

/// `static` of a file, and `serve` as an app's script: pm2's two ways to declare one.
#[test]
fn a_file_declares_what_is_served() {
    let home = Home::new();
    home.file("site/index.html", "<h1>home</h1>");
    let (first, second) = (free_port(), free_port());
    let sites = json!({
        "static": [{"name": "pages", "path": "site", "port": first, "host": "127.0.0.1",
                    "basic_auth": {"username": "u", "password": "planted"}}],
        "apps": [{"script": "serve", "env": {"PM2_SERVE_PATH": "site", "PM2_SERVE_PORT": second}}],
    });
    home.file("apps.json", &sites.to_string());
    home.pmx(&["start", "apps.json"]).ok();
    for port in [first, second] {
        wait_until("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    }
    assert_eq!(status(&ask(first, "/", "")), 401);
    assert_eq!(status(&ask(first, "/", "Authorization: Basic dTpwbGFudGVk\r\n")), 200);
    assert_eq!(body(&ask(second, "/", "")), "<h1>home</h1>");
    let names: Vec<_> = home.list().iter().map(|p| p["name"].as_str().unwrap().to_string()).collect();
    assert!(names.contains(&"pages".to_string()), "{names:?}");
    assert!(names.contains(&format!("static-page-server-{second}")), "{names:?}");
    // The same again changes nothing.
    assert!(home.pmx(&["apply", "apps.json"]).ok().out.contains("nothing to do"));
}
