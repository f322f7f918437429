use super::*;

fn assert_unique(mut names: Vec<String>) {
    names.sort();
    let doubled: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(doubled.is_empty(), "twice in the table: {doubled:?}");
}

#[test]
fn no_name_is_taken_twice() {
    let commands = COMMANDS.iter().flat_map(|command| command.names.iter().copied());
    let foreign = FOREIGN_COMMANDS.iter().flat_map(|row| row.0.iter().copied());
    let whole = WHOLE_COMMANDS.iter().map(|row| row.0);
    let others = foreign.chain(whole);
    assert_unique(commands.chain(others).map(String::from).collect());
    let longs = FLAGS.iter().flat_map(|flag| flag.longs.iter().copied());
    let foreign = FOREIGN_FLAGS.iter().flat_map(|row| row.0.iter().copied());
    assert_unique(longs.chain(foreign).map(String::from).collect());
    let shorts = FLAGS.iter().flat_map(|flag| flag.shorts.iter().copied());
    assert_unique(shorts.map(String::from).collect());
}

#[test]
fn every_option_of_a_command_is_in_the_table() {
    for command in COMMANDS {
        for opt in command.own_options().chain(EVERYWHERE.iter().copied()) {
            assert_eq!(Flag::of(opt).opt, opt);
        }
    }
    for flag in FLAGS {
        assert!(COMMANDS.iter().any(|command| command.takes(flag.opt)), "nobody takes {}", flag.name());
    }
}
