//! The project's style, as far as a program can judge it. Each test is one rule; its message names
//! the file, the line and what to do. Limits only ever tighten: the list of exceptions holds what
//! may exceed one and by how much, and an entry that is no longer needed is itself an error.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 800;
const CODE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;
const LINES_ABOVE_UNSAFE_MAX: usize = 3;

/// Files that may be longer than the limits, with their number of lines.
const LONG_FILES: &[(&str, usize)] = &[];

/// The project's folders; everything else lives inside of them.
const FOLDERS: &[&str] = &["benches", "net", "runtime", "scripts", "shard"];

/// File names that do not say what is inside.
const EMPTY_NAMES: &[&str] =
    &["base", "common", "helper", "helpers", "impl", "manager", "misc", "types", "util", "utils"];

/// A file below the root, its path relative to it.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines with their numbers, as editors count them.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Lines of code and comment before the unit tests.
    fn code_lines(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        lines
            .windows(2)
            .position(|pair| pair[0].starts_with("#[cfg(") && pair[1].starts_with("mod tests {"))
            .unwrap_or(lines.len())
    }

    fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.split('.').next().unwrap_or_default()
    }
}

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).expect("the root exists")
}

/// Folders that hold what is built, fetched or generated.
fn is_skipped(name: &str) -> bool {
    name.starts_with('.')
        || name.starts_with("target")
        || matches!(name, "corpus" | "artifacts" | "coverage" | "__pycache__")
}

/// All text files of the project.
fn files() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let entry = entry.expect("an entry of a folder");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("the type of an entry");
            if kind.is_dir() && !is_skipped(&name) {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                let path = entry.path();
                let path = path.strip_prefix(&root).expect("below the root");
                found.push(File { path: path.to_string_lossy().into_owned(), text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no files below {}", root.display());
    found
}

fn rust_files() -> impl Iterator<Item = File> {
    files().into_iter().filter(File::is_rust)
}

/// Collects what breaks a rule, and fails with all of it at once.
struct Findings {
    advice: &'static str,
    text: String,
}

impl Findings {
    fn new(advice: &'static str) -> Self {
        Self { advice, text: String::new() }
    }

    fn add(&mut self, file: &str, line: usize, what: impl std::fmt::Display) {
        writeln!(self.text, "  {file}:{line}: {what}").expect("a string takes it");
    }

    fn check(self) {
        assert!(self.text.is_empty(), "\n{}{}\n", self.text, self.advice);
    }
}

#[test]
fn files_stay_short() {
    let mut findings = Findings::new(
        "Split the file by responsibility: a parent module that indexes one child per part.",
    );
    let mut exceptions = LONG_FILES.to_vec();
    for file in rust_files() {
        let (all, code) = (file.text.lines().count(), file.code_lines());
        let too_long = all > FILE_LINES_MAX || code > CODE_LINES_MAX;
        let exception = exceptions.iter().position(|(path, _)| *path == file.path);
        let allowed = exception.map(|at| exceptions.swap_remove(at).1);
        match allowed {
            None if all > FILE_LINES_MAX => {
                findings.add(&file.path, all, format!("{all} lines, at most {FILE_LINES_MAX}"));
            }
            None if code > CODE_LINES_MAX => findings.add(
                &file.path,
                code,
                format!("{code} lines before its tests, at most {CODE_LINES_MAX}"),
            ),
            Some(lines) if !too_long || all < lines => findings.add(
                &file.path,
                all,
                format!("has shrunk to {all} lines: lower or remove its entry in LONG_FILES"),
            ),
            Some(lines) if all > lines => {
                findings.add(&file.path, all, format!("has grown to {all} lines, was {lines}"));
            }
            _ => {}
        }
    }
    for (path, _) in exceptions {
        findings.add(path, 1, "is gone: remove its entry in LONG_FILES");
    }
    findings.check();
}

#[test]
fn functions_stay_short() {
    let mut findings = Findings::new("Take a part with a name of its own out of the function.");
    for file in rust_files() {
        let lines: Vec<&str> = file.text.lines().collect();
        // A test may be a long table.
        for (at, line) in lines.iter().enumerate().take(file.code_lines()) {
            if !starts_function(line) || line.ends_with(';') || line.ends_with('}') {
                continue;
            }
            // Formatted code closes a function in the column in which it began.
            let margin = &line[..line.len() - line.trim_start().len()];
            let closing = format!("{margin}}}");
            let end = lines[at..].iter().position(|other| {
                *other == closing
                    || (other.starts_with(&format!("{margin})")) && other.ends_with(';'))
            });
            let length = end.map_or(1, |end| end + 1);
            if length > FUNCTION_LINES_MAX {
                let what = format!("a function of {length} lines, at most {FUNCTION_LINES_MAX}");
                findings.add(&file.path, at + 1, what);
            }
        }
    }
    findings.check();
}

fn starts_function(line: &str) -> bool {
    let mut rest = line.trim_start();
    loop {
        if let Some(name) = rest.strip_prefix("fn ") {
            return name.starts_with(|first: char| first.is_alphabetic() || first == '_');
        }
        let Some((word, after)) = rest.split_once(' ') else { return false };
        let is_qualifier =
            matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"")
                || word.starts_with("pub(");
        if !is_qualifier {
            return false;
        }
        rest = after;
    }
}

#[test]
fn lines_fit_and_end_cleanly() {
    let mut findings =
        Findings::new("Wrap long lines; use spaces; leave nothing after the last word.");
    for file in files() {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let is_source =
            [".rs", ".toml", ".md", ".py", ".sh", ".yml"].iter().any(|end| name.ends_with(end))
                || file.path.starts_with("scripts/");
        if !is_source {
            continue;
        }
        for (number, line) in file.lines() {
            if file.is_rust() && line.chars().count() > LINE_COLUMNS_MAX {
                let columns = line.chars().count();
                findings.add(
                    &file.path,
                    number,
                    format!("{columns} columns, at most {LINE_COLUMNS_MAX}"),
                );
            }
            if line.contains('\t') {
                findings.add(&file.path, number, "a tab");
            }
            if line.ends_with([' ', '\r']) {
                findings.add(&file.path, number, "blanks at the end");
            }
        }
        if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
            findings.add(
                &file.path,
                file.text.lines().count(),
                "should end with exactly one line break",
            );
        }
    }
    findings.check();
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let marks = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("db", "g!"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let mut findings = Findings::new("Do it now, or write down in an issue why it can wait.");
    for file in files() {
        let is_code =
            file.is_rust() || file.path.ends_with(".py") || file.path.starts_with("scripts/");
        for (number, line) in file.lines().filter(|_| is_code) {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                findings.add(&file.path, number, mark);
            }
        }
    }
    findings.check();
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    let mut findings = Findings::new(
        "Prove it: `// SAFETY: ..` right above a block or impl, `# Safety` above a function.",
    );
    for file in rust_files() {
        let code_lines = file.code_lines();
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let line = line.split(" // ").next().unwrap_or_default();
            if line.trim_start().starts_with("//") {
                continue;
            }
            let is_block =
                line.contains(concat!("unsafe", " {")) || line.contains(concat!("unsafe", " impl"));
            if is_block && !is_proved(&lines, at) {
                findings.add(&file.path, at + 1, "unsafe without its proof");
            }
            let is_function = starts_function(line) && line.contains(concat!("unsafe", " "));
            // Tests and cases of mistakes have no callers to warn.
            let has_callers = at < code_lines && !file.path.contains("/compile_fail/");
            if is_function && has_callers && !states_its_contract(&lines, at) {
                findings.add(&file.path, at + 1, "an unsafe function without its contract");
            }
        }
    }
    findings.check();
}

/// A proof stands in the lines right above, or begins further up in the comment that ends there.
fn is_proved(lines: &[&str], at: usize) -> bool {
    let nearest = at.saturating_sub(LINES_ABOVE_UNSAFE_MAX);
    let above = lines[..at].iter().rposition(|line| !line.trim_start().starts_with("//"));
    let comment = above.map_or(0, |line| line + 1);
    lines[nearest.min(comment)..=at].iter().any(|line| line.contains("SAFETY"))
}

/// Its documentation has a section `# Safety`; a trait's method has it where the trait is.
fn states_its_contract(lines: &[&str], at: usize) -> bool {
    let is_about = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with('#') || line.starts_with(')') || line.is_empty()
    };
    let documented = lines[..at]
        .iter()
        .rev()
        .take_while(|line| is_about(line))
        .any(|line| line.contains("# Safety") || line.contains("SAFETY"));
    let indent = |line: &str| line.len() - line.trim_start().len();
    let outer = lines[..at]
        .iter()
        .rev()
        .find(|line| !line.trim().is_empty() && indent(line) < indent(lines[at]));
    documented || outer.is_some_and(|line| line.contains("impl") && line.contains(" for "))
}

#[test]
fn names_say_what_is_inside() {
    let mut findings = Findings::new(
        "Name a file for its main type or verb; a parent module is `name.rs` beside `name/`.",
    );
    for file in files() {
        if file.path.ends_with("mod.rs") && file.stem() == "mod" {
            findings.add(&file.path, 1, "should be named for its module");
        }
        if EMPTY_NAMES.contains(&file.stem()) {
            findings.add(&file.path, 1, format!("'{}' says nothing", file.stem()));
        }
    }
    findings.check();
}

#[test]
fn the_top_level_is_the_charters() {
    let mut findings =
        Findings::new("Everything lives inside of benches, net, runtime, scripts and shard.");
    for entry in fs::read_dir(root()).expect("the root") {
        let entry = entry.expect("an entry of the root");
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().expect("the type of an entry").is_dir();
        if is_folder && !is_skipped(&name) && !FOLDERS.contains(&name.as_str()) {
            findings.add(&name, 1, "a folder of its own at the top level");
        }
    }
    findings.check();
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    let mut findings = Findings::new("Correct the link, or remove it.");
    for file in files().iter().filter(|file| file.path.ends_with(".md")) {
        let folder = root.join(&file.path).parent().map(Path::to_path_buf).unwrap_or_default();
        for (number, line) in file.lines() {
            for rest in line.split("](").skip(1) {
                let link = rest.split([')', '#']).next().unwrap_or_default();
                let is_file = !link.is_empty() && !link.contains("://");
                if is_file && !folder.join(link).exists() {
                    findings.add(&file.path, number, format!("nothing at '{link}'"));
                }
            }
        }
    }
    findings.check();
}

#[test]
fn scripts_are_strict_executable_and_documented() {
    let root = root();
    let described: String = ["README.md", "CONTRIBUTING.md"]
        .iter()
        .filter_map(|name| fs::read_to_string(root.join(name)).ok())
        .collect();
    let mut findings = Findings::new(
        "A script starts with `#!/usr/bin/env bash` and `set -euo pipefail`, has its run bit, and \
         CONTRIBUTING.md or README.md says what it is for. What is only sourced ends with `.sh`.",
    );
    let mut names: Vec<String> = fs::read_dir(root.join("scripts"))
        .expect("scripts/")
        .map(|entry| format!("scripts/{}", entry.expect("a script").file_name().to_string_lossy()))
        .collect();
    names.push(".ci/run".to_owned());
    names.sort();
    for name in names {
        let text = fs::read_to_string(root.join(&name)).expect("a script is text");
        let mode = fs::metadata(root.join(&name)).expect("a script").permissions().mode();
        let is_sourced = name.ends_with(".sh");
        if !text.lines().any(|line| line == "set -euo pipefail") {
            findings.add(&name, 1, "has no `set -euo pipefail`");
        }
        if !is_sourced && mode & 0o111 != 0o111 {
            findings.add(&name, 1, "is not executable: chmod +x");
        }
        if !is_sourced && !text.starts_with("#!/usr/bin/env bash\n") {
            findings.add(&name, 1, "does not start with #!/usr/bin/env bash");
        }
        if !described.contains(&name) {
            findings.add(&name, 1, "is named neither in CONTRIBUTING.md nor in README.md");
        }
    }
    findings.check();
}
