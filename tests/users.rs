//! Apps that run as somebody else than the daemon. Only root can start such.

use crate::support::{Home, free_port, get, node, wait_for};

#[test]
fn a_node_app_of_another_user_is_clustered_too() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can run apps as somebody else");
        return;
    }
    let home = Home::new();
    home.file(
        "app.js",
        "require('http').createServer((q, r) => r.end(`${process.getuid()} ${process.getgroups()}`)).listen(+process.env.PORT);",
    );
    let port = free_port().to_string();
    let interpreter = node(20).display().to_string();
    let start = ["start", "app.js", "-i", "2", "--uid", "nobody", "--interpreter", &interpreter];
    home.pmx_with(&[("PORT", &port)], &start).ok();
    let body = wait_for("an answer", || get(port.parse().unwrap(), "/").ok()).body;
    assert_eq!(body.split(' ').next(), Some("65534"), "{body}");
    home.pmx(&["reload", "app"]).ok();
    let describe = home.pmx(&["describe", "app"]).ok().out;
    assert!(describe.contains("listens on") && describe.contains(&port), "{describe}");
}
