//! A declaration to begin with: every field on a line of its own that a comment sign keeps out, from the table
//! of fields.

use super::fields::FIELDS;
use super::kind::Kind;

/// What a sample is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A module for node.
    JavaScript,
    /// JSON with comments.
    Json5,
    /// YAML.
    Yaml,
}

/// Values of fields that have no default. All of them can be tried as they are.
const EXAMPLES: &[(&str, &str)] = &[
    ("name", "\"app\""),
    ("script", "\"./app.js\""),
    ("name_prefix", "\"shop\""),
    ("cwd", "\"/srv/app\""),
    ("interpreter", "\"node\""),
    ("exec_mode", "\"cluster\""),
    ("env_file", "\".env\""),
    ("port", "3000"),
    ("instance_var", "\"WORKER\""),
    ("increment_var", "\"PORT\""),
    ("uid", "\"www-data\""),
    ("gid", "\"www-data\""),
    ("out_file", "\"/var/log/app.log\""),
    ("error_file", "\"/var/log/app-error.log\""),
    ("umask", "\"027\""),
    ("no_new_privs", "true"),
    ("capabilities", "[\"net_bind_service\"]"),
    ("ready", "\"listen\""),
    ("health", "{\"http\": \"/health\"}"),
    ("max_memory_restart", "\"300M\""),
    ("cron_restart", "\"0 3 * * *\""),
    ("schedule", "\"*/10 * * * *\""),
    ("cron_timezone", "\"Europe/Berlin\""),
    ("watch_options", "{}"),
    ("ext", "\"js,json\""),
    ("log_file", "\"/var/log/app-both.log\""),
    ("log_rotate", "{\"max_size\": \"10M\", \"retain\": 30}"),
    ("log_date_format", "\"YYYY-MM-DD HH:mm:ss\""),
    ("pid_file", "\"/run/app.pid\""),
    ("depends_on", "{\"db\": \"healthy\"}"),
    ("pre_start", "\"./migrate\""),
    ("post_stop", "\"./clean-up\""),
    ("on", "{\"errored\": \"logger -t pmx\"}"),
];

/// The text of a sample. A short one has only what an app must have.
pub fn sample(form: Form, short: bool) -> String {
    let (sign, comma) = match form {
        Form::JavaScript | Form::Json5 => ("//", ","),
        Form::Yaml => ("#", ""),
    };
    let mut text = format!(
        "{sign} Apps for pmx: `pmx start` starts what stands here, `pmx apply` makes it so.\n{}",
        match form {
            Form::JavaScript => "module.exports = {\n  apps: [\n    {\n",
            Form::Json5 => "{\n  apps: [\n    {\n",
            Form::Yaml => "apps:\n  -\n",
        }
    );
    text.push_str(&format!("      name: \"app\"{comma}\n      script: \"./app.js\"{comma}\n"));
    if !short {
        text.push_str(&format!("\n      {sign} All else there is, with its default, or with an example.\n"));
        for (name, value, about) in lines() {
            let field = format!("{sign} {name}: {value}{comma}");
            text.push_str(&format!("      {field:<44} {sign} {about}\n"));
        }
        let over = format!("{sign} env_production: {{}}{comma}");
        text.push_str(&format!("      {over:<44} {sign} lies over env with --env production\n"));
    }
    text.push_str(match form {
        Form::JavaScript => "    },\n  ],\n};\n",
        Form::Json5 => "    },\n  ],\n}\n",
        Form::Yaml => "",
    });
    text
}

/// The other fields that do something: name, value, what for.
fn lines() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let done = |name: &str| ["name", "script"].contains(&name);
    let built = FIELDS
        .iter()
        .filter(move |field| !matches!(field.kind, Kind::Ignored | Kind::Foreign) && !done(field.names[0]));
    built.filter_map(|field| {
        let name = field.names[0];
        let example = || Some(EXAMPLES.iter().find(|example| example.0 == name)?.1);
        let value = Some(field.default).filter(|default| !default.is_empty()).or_else(example)?;
        Some((name, value, field.about))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fields::Field;
    use super::super::{Document, read};
    use super::*;

    fn document(form: Form, text: &str) -> Document {
        match form {
            Form::JavaScript => {
                Document::json(&text.replace("module.exports = ", "").replace("};", "}")).unwrap()
            }
            Form::Json5 => Document::json(text).unwrap(),
            #[cfg(feature = "yaml")]
            Form::Yaml => Document::yaml(text).unwrap(),
            #[cfg(not(feature = "yaml"))]
            Form::Yaml => Document::json("{script: 'x', name: 'app'}").unwrap(),
        }
    }

    #[test]
    fn a_sample_is_valid_and_so_is_each_of_its_lines() {
        for form in [Form::JavaScript, Form::Json5, Form::Yaml] {
            for short in [true, false] {
                let found = read("sample", &document(form, &sample(form, short))).unwrap();
                assert_eq!((found.apps.len(), found.apps[0].name().as_str()), (1, "app"));
            }
            let text = sample(form, false);
            let mut tried = 0;
            for (name, value, _) in lines() {
                let line = format!("{name}: {value}");
                let sign = if form == Form::Yaml { "# " } else { "// " };
                let with = text.replacen(&format!("{sign}{line}"), &line, 1);
                assert_ne!(with, text, "{line}");
                let found =
                    read("sample", &document(form, &with)).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert_eq!(found.warnings, [""; 0], "{line}");
                tried += 1;
            }
            assert!(tried > 50, "{tried}");
        }
    }

    #[test]
    fn every_field_that_does_something_is_in_it() {
        let shown: Vec<_> = lines().map(|line| line.0).collect();
        let does = |field: &&Field| !matches!(field.kind, Kind::Ignored | Kind::Foreign);
        for field in FIELDS.iter().filter(does) {
            let name = field.names[0];
            assert!(["name", "script"].contains(&name) || shown.contains(&name), "{name} has no example");
        }
    }
}
