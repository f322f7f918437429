//! `init`: a declaration file to begin with; and `schema`, the format for editors and other programs.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::Session;
use super::caller::absolute;
use super::screen::Fail;
use crate::app::declaration::{self, Form};

const USUAL: &str = "ecosystem.config.js";

/// `pmx init`. What is there stays.
pub fn init(session: &mut Session<'_, '_>, file: Option<&String>) -> Result<(), Fail> {
    // pm2's word for a short one.
    let short = file.is_some_and(|file| file == "simple");
    let file = file.filter(|_| !short).map_or(USUAL, String::as_str);
    let form = form(file).ok_or_else(|| {
        format!(
            "init {file}: expected a name that ends in .config.js, .config.cjs, .json5, .json, .yaml or .yml"
        )
    })?;
    let path = absolute(&session.caller.cwd, Path::new(file));
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    let written = written.and_then(|mut file| file.write_all(declaration::sample(form, short).as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("init {file}: it is there already, and stays as it is"),
        _ => format!("init {file}: {}", crate::sys::reason(&error)),
    })?;
    session.screen.line(&format!("init: {file} is written; pmx start {file} starts what stands in it"))
}

fn form(file: &str) -> Option<Form> {
    let ends = |ends: &[&str]| ends.iter().any(|end| file.ends_with(end));
    if ends(&[".config.js", ".config.cjs"]) {
        Some(Form::JavaScript)
    } else if ends(&[".json5", ".json"]) {
        Some(Form::Json5)
    } else if ends(&[".yaml", ".yml"]) {
        Some(Form::Yaml)
    } else {
        None
    }
}

/// `pmx schema`.
pub fn schema(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let text = serde_json::to_string_pretty(&declaration::schema());
    let text = text.map_err(|error| format!("schema: {error}"))?;
    session.screen.data(format!("{text}\n").as_bytes())
}
