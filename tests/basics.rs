//! Start, list, stop: the round trip through every layer.

use crate::support::{Home, wait_until};

#[test]
fn a_script_is_started_listed_logged_and_stopped() {
    let home = Home::new();
    home.file("tick.sh", "#!/bin/sh\necho up\nexec sleep 1000\n");
    home.pmx(&["start", "tick.sh"]).ok();
    assert_eq!(home.status(0), "online");
    wait_until("its line in the log", || home.log("tick-out-0.log") == "up\n");
    home.pmx(&["stop", "tick"]).ok();
    assert_eq!(home.status(0), "stopped");
    assert_eq!(home.pid(0), 0);
    home.pmx(&["delete", "0"]).ok();
    assert!(home.list().is_empty());
}
