use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::draw::{KEYS, draw};
use super::state::{Deed, Mode, Order, State, Step};
use crate::protocol::{Leak, Queue, View};
use crate::time::Wall;

fn view(id: u32, name: &str, cpu: f32, memory: u64) -> View {
    serde_json::from_value(json!({
        "id": id, "name": name, "namespace": "default", "cluster": false, "instance": 0, "status": "online",
        "pid": 100 + id, "since": 1_000, "restarts": id, "unstable": 0, "cpu": cpu, "memory": memory, "user": "root",
    }))
    .unwrap()
}

fn state() -> State {
    let mut state = State::new(false);
    let views =
        vec![view(0, "api", 50.0, 64 << 20), view(1, "web", 5.0, 128 << 20), view(2, "job", 0.0, 1 << 20)];
    state.views(views, Wall(61_000));
    state
}

fn press(state: &mut State, code: KeyCode) -> Option<Step> {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_text(state: &mut State, text: &str) {
    for letter in text.chars() {
        press(state, KeyCode::Char(letter));
    }
}

fn picture(state: &mut State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn a_picture_fits_into_whatever_room_there_is() {
    let mut state = state();
    for (width, height) in [(80, 24), (200, 60), (40, 10), (20, 5), (1, 1)] {
        let picture = picture(&mut state, width, height);
        if width >= 80 {
            for word in ["api", "web", "job", "online", "64.0mb", "50%", "60s", "logs", "facts"] {
                assert!(picture.contains(word), "{word} in {picture}");
            }
        }
    }
}

/// As committed: `PMX_PICTURES=write` writes them anew, to be looked at.
#[test]
fn pictures_are_as_they_were() {
    for (width, height) in [(80, 24), (200, 60)] {
        let mut state = state();
        for cpu in [0.0, 20.0, 99.0] {
            let mut views = vec![view(0, "api", cpu, 64 << 20), view(1, "web", 7.0, 128 << 20)];
            views[1].status = crate::protocol::Status::Errored;
            views.push(view(2, "naïve-配置", 0.0, 1 << 20));
            state.views(views, Wall(7_261_000));
        }
        press(&mut state, KeyCode::Down);
        let picture = picture(&mut state, width, height);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/monit-{width}x{height}.txt"));
        if std::env::var_os("PMX_PICTURES").is_some_and(|value| value == "write") {
            std::fs::write(&path, &picture).unwrap();
        }
        assert_eq!(picture, std::fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
    }
}

#[test]
fn keys_select_sort_and_filter() {
    let mut state = state();
    assert_eq!(state.selected(), Some(0));
    assert_eq!(press(&mut state, KeyCode::Down), Some(Step::Look));
    assert_eq!(state.selected(), Some(1));
    press(&mut state, KeyCode::Char('G'));
    press(&mut state, KeyCode::Char('j'));
    assert_eq!(state.selected(), Some(2));
    let shown = |state: &State| state.shown().iter().map(|view| view.id).collect::<Vec<_>>();
    for (order, expected) in [
        (Order::Name, [0, 2, 1]),
        (Order::Cpu, [0, 1, 2]),
        (Order::Memory, [1, 0, 2]),
        (Order::Restarts, [2, 1, 0]),
        (Order::Id, [0, 1, 2]),
    ] {
        press(&mut state, KeyCode::Char('o'));
        assert_eq!((state.order, shown(&state)), (order, expected.to_vec()));
    }
    press(&mut state, KeyCode::Char('/'));
    type_text(&mut state, "WEx");
    press(&mut state, KeyCode::Backspace);
    // Letters are no commands while a text is typed.
    assert_eq!((shown(&state), state.selected()), (vec![1], Some(1)));
    press(&mut state, KeyCode::Enter);
    assert_eq!(state.mode, Mode::Look);
    press(&mut state, KeyCode::Esc);
    assert_eq!(shown(&state).len(), 3);
    assert_eq!(press(&mut state, KeyCode::Esc), Some(Step::Leave));
}

#[test]
fn keys_act_on_the_selected_process() {
    let mut state = state();
    let mut does = |keys: &str| {
        keys.chars()
            .filter_map(|key| {
                press(&mut state, if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) })
            })
            .last()
    };
    let step = |words: &[&str], name: &str| {
        Some(Step::Do(Deed {
            words: words.iter().map(|word| word.to_string()).collect(),
            name: name.to_string(),
        }))
    };
    let id = crate::protocol::by_id(0);
    for (key, verb) in [("r", "restart"), ("l", "reload"), ("s", "stop")] {
        assert_eq!(does(key), step(&[verb, &id], &format!("{verb} api(0)")));
    }
    assert_eq!(does("+"), step(&["scale", "api", "+1"], "scale api +1"));
    assert_eq!(does("=4\n"), step(&["scale", "api", "4"], "scale api 4"));
    assert_eq!(does("dn"), None);
    assert_eq!(does("dy"), step(&["delete", &id], "delete api(0)"));
    assert_eq!(does("q"), Some(Step::Leave));
}

#[test]
fn facts_tell_of_a_leak_of_queues_and_of_what_was_accepted() {
    let mut state = state();
    let mut facts = crate::cli::jlist::tests::detail();
    facts.view.leak = Some(Leak { rate: 12 << 20, limit: None, reached_in: None });
    facts.view.accepted = Some(41);
    let address = "0.0.0.0:3000".to_string();
    facts.queues = vec![Queue { address, waiting: 7, most: 511 }];
    state.detail(Some(facts));
    let picture = picture(&mut state, 200, 60);
    for part in
        ["leak memory grows by 12 MiB per hour", "accepted 41", "queue 7 of 511 wait", "files 21 open"]
    {
        assert!(picture.contains(part), "{part} in {picture}");
    }
}

#[test]
fn the_help_names_every_key() {
    let mut state = state();
    press(&mut state, KeyCode::Char('?'));
    let picture = picture(&mut state, 80, 24);
    for (keys, what) in KEYS {
        assert!(picture.contains(keys) && picture.contains(what), "{keys} in {picture}");
    }
    press(&mut state, KeyCode::Char('q'));
    assert_eq!(state.mode, Mode::Look);
}
