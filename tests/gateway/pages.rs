//! The commands in the pages of docs/, run as a reader would run them: from the example files
//! alone, in a folder that has nothing else. What a page says comes of a command has to come of it.
//!
//! A block of commands is run when it says what comes of them, in a page that runs an example.
//! Behind a command stands `# 403 client.address`: the status, and the reason in the output; texts
//! in backquotes are in the output too, or not in it behind the word `no`. `ringway run FILE` and
//! `ringway demo ADDRESS` go on in the background; blocks of one page find what those before them
//! have left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::eventually;

/// Ports of the examples. Each run has others in their place.
const PORTS: [&str; 5] = ["8080", "8443", "8000", "8001", "9180"];
/// Pages of policies whose commands need what a test machine may not have: a Redis, a provider.
const NOT_RUN: [&str; 2] = ["fleet-limits.md", "oidc.md"];

/// A command, and what is said of it.
#[derive(Debug, PartialEq)]
struct Line {
    command: String,
    said: String,
}

/// The blocks of a page that say what comes of their commands, if it runs an example.
fn blocks(page: &str) -> Vec<Vec<Line>> {
    let mut blocks = Vec::new();
    if !page.contains("\nringway run config/") {
        return blocks;
    }
    for part in page.split("```sh\n").skip(1) {
        let text = part.split("\n```").next().unwrap().replace("\\\n", " ");
        let lines: Vec<Line> = text.lines().filter_map(line).collect();
        if lines.iter().any(|line| !line.said.is_empty() && is_judged(&line.command)) {
            blocks.push(lines);
        }
    }
    blocks
}

fn line(text: &str) -> Option<Line> {
    let (command, said) = text.rsplit_once(" # ").unwrap_or((text, ""));
    let command = command.trim().trim_end_matches('&').trim();
    let is_command = !command.is_empty() && !command.starts_with('#');
    is_command.then(|| Line { command: command.to_owned(), said: said.trim().to_owned() })
}

fn is_of(command: &str, words: &[&str]) -> bool {
    words.iter().any(|word| command.starts_with(&format!("{word} ")))
}

/// Goes on in the background.
fn stays(command: &str) -> bool {
    is_of(command, &["ringway run", "ringway demo"])
}

/// Something has to be said of it.
fn is_judged(command: &str) -> bool {
    is_of(command, &["curl", "ringway"]) && !stays(command) && !command.contains(" > ")
}

/// What a page says, against what came of it; `None`: it is so.
fn difference(line: &Line, output: &Output) -> Option<String> {
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    let wrong = |what: &str| Some(format!("{what}, `{}`:\n{text}", line.command));
    let mut words = line.said.split_whitespace().map(|word| word.trim_end_matches([',', '.', ':']));
    let status = words.next().filter(|word| word.len() == 3 && word.parse::<u16>().is_ok());
    let reason = words.next().filter(|word| status.is_some() && word.contains('.'));
    if let Some(status) = status {
        let has = match line.command.starts_with("ringway") {
            true => text.contains(&format!(" {status} ")),
            false => text
                .lines()
                .rfind(|l| l.starts_with("HTTP/"))
                .is_some_and(|l| l.split_whitespace().nth(1) == Some(status)),
        };
        if !has {
            return wrong(&format!("not {status}"));
        }
    }
    if let Some(reason) = reason.filter(|reason| !text.contains(reason)) {
        return wrong(&format!("no {reason}"));
    }
    let parts: Vec<&str> = line.said.split('`').collect();
    for pair in parts.windows(2).step_by(2).filter(|_| parts.len() % 2 == 1) {
        let is_none = pair[0].trim_end().ends_with("no");
        // Names of fields are in any case.
        if text.to_lowercase().contains(&pair[1].to_lowercase()) == is_none {
            return wrong(&format!("{} `{}`", if is_none { "there is" } else { "no" }, pair[1]));
        }
    }
    if is_judged(&line.command) && status.is_none() && parts.len() < 3 {
        return wrong("nothing is said of what comes of");
    }
    // What refuses ends with 1.
    let may_fail = line.command.starts_with("ringway") && status.is_some();
    (!output.status.success() && !may_fail).then(|| wrong("failed")).flatten()
}

/// A folder with the examples, as somebody has it who tries a page.
struct Desk {
    dir: tempfile::TempDir,
    ports: Vec<(Socket, String)>,
    running: Vec<Child>,
}

impl Desk {
    fn new() -> Desk {
        let ports = PORTS.iter().map(|_| reserved()).collect();
        let desk = Desk { dir: tempfile::tempdir().unwrap(), ports, running: Vec::new() };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        desk.copy(&root.join("config"), &desk.dir.path().join("config"));
        fs::create_dir(desk.dir.path().join("scripts")).unwrap();
        fs::copy(root.join("scripts/token"), desk.dir.path().join("scripts/token")).unwrap();
        desk
    }

    fn copy(&self, from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (path, copy) = (entry.path(), to.join(entry.file_name()));
            if path.is_dir() {
                self.copy(&path, &copy);
            } else if path.extension().is_some_and(|end| end == "toml") {
                fs::write(copy, self.example(&fs::read_to_string(path).unwrap())).unwrap();
            } else {
                fs::copy(path, copy).unwrap();
            }
        }
    }

    /// With this run's ports, on the driver that is tested.
    fn example(&self, toml: &str) -> String {
        // What it keeps is kept for this run.
        let own = format!("\"{}/", self.dir.path().display());
        let toml = self.moved(toml).replace("\"/tmp/", &own);
        match std::env::var("RINGWAY_TEST_IO") {
            Ok(io) if !toml.contains("[runtime]") => format!("{toml}\n[runtime]\nio = \"{io}\"\n"),
            _ => toml,
        }
    }

    fn moved(&self, text: &str) -> String {
        let ports = PORTS.iter().zip(&self.ports);
        ports.fold(text.to_owned(), |text, (known, (_, port))| {
            text.replace(&format!(":{known}"), &format!(":{port}"))
        })
    }

    fn shell(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_ringway")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash");
        shell
            .args(["-o", "pipefail", "-c", line])
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", program.display()))
            .env("RUNTIME_DIRECTORY", self.dir.path())
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        shell
    }

    /// Starts what goes on, and waits until it serves. One that runs already makes room, as its
    /// reader would have ended it.
    fn begin(&mut self, command: &str) {
        if command.starts_with("ringway run") {
            self.end();
        }
        let log = self.dir.path().join(format!("log-{}", self.running.len()));
        let file = fs::File::create(&log).unwrap();
        let mut shell = self.shell(&format!("exec {}", self.moved(command)));
        shell.stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = shell.spawn().unwrap();
        eventually(&format!("{command} serves"), || {
            let text = fs::read_to_string(&log).unwrap();
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{command} has ended:\n{text}");
            text.split_whitespace().any(|word| matches!(word, "ready" | "ready:" | "answers"))
        });
        self.running.push(child);
    }

    fn end(&mut self) {
        // Sample upstreams stay.
        let is_gateway = |child: &Child| {
            let line = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("\0run\0")
        };
        for child in self.running.iter_mut().filter(|child| is_gateway(child)) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that nobody else is given while it is held, and on which others of this user may listen.
fn reserved() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&SockAddr::from(any)).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port.to_string())
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Every page, by its name.
fn pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// What is not as the page says.
fn tried(name: &str, page: &str) -> Vec<String> {
    let blocks = blocks(page);
    if blocks.is_empty() || NOT_RUN.contains(&name) {
        return Vec::new();
    }
    let mut desk = Desk::new();
    let mut wrong = Vec::new();
    for line in blocks.into_iter().flatten() {
        if stays(&line.command) {
            desk.begin(&line.command);
            continue;
        }
        let output = desk.shell(&desk.moved(&line.command)).output().unwrap();
        wrong.extend(difference(&line, &output).map(|what| format!("docs/{name}: {what}\n")));
    }
    wrong
}

#[test]
fn what_pages_say_of_their_commands_comes_of_them() {
    let tried: Vec<String> = std::thread::scope(|scope| {
        let all = pages().into_iter();
        let begun = all.map(|(name, page)| scope.spawn(move || tried(&name, &page)));
        let begun: Vec<_> = begun.collect();
        let failed = |_| vec!["a page whose example does not serve: see above\n".to_owned()];
        begun.into_iter().flat_map(|page| page.join().unwrap_or_else(failed)).collect()
    });
    assert!(tried.is_empty(), "{}", tried.join("\n"));
}

/// A policy that a page tells of can be tried by that page.
#[test]
fn every_policy_has_commands_to_try_it() {
    let pages = pages();
    let policies: BTreeSet<&str> = pages
        .iter()
        .filter(|(name, _)| ["policies.md", "authentication.md"].contains(&name.as_str()))
        .flat_map(|(_, page)| page.split("](").skip(1))
        .filter_map(|link| link.split([')', '#']).next())
        .filter(|link| link.ends_with(".md") && !link.contains('/'))
        .filter(|link| !["configuration.md", "reasons.md", "access-log.md"].contains(link))
        .collect();
    assert!(policies.len() >= 12, "{policies:?}");
    let without = policies.iter().filter(|link| !NOT_RUN.contains(link)).filter(|link| {
        let page = pages.iter().find(|(name, _)| name == *link);
        page.is_none_or(|(_, page)| blocks(page).is_empty())
    });
    let without: Vec<_> = without.collect();
    assert!(without.is_empty(), "no commands whose outcome is told: {without:?}");
}

#[test]
fn a_command_is_read_with_what_is_said_of_it() {
    let page = "```sh\nringway run config/a.toml &\n# a note\ncurl -i\\\n a:8080 # 403 client.x\n\
                gzip x\n```\n```sh\nringway check\n```\n```toml\na = 1 # 200\n```\n";
    let found = blocks(page);
    let told: Vec<_> = found.iter().flatten().map(|l| (&*l.command, &*l.said)).collect();
    let wanted =
        [("ringway run config/a.toml", ""), ("curl -i  a:8080", "403 client.x"), ("gzip x", "")];
    assert_eq!(told, wanted);
    use std::os::unix::process::ExitStatusExt;
    let output = |text: &str| Output {
        status: std::process::ExitStatus::from_raw(0),
        stdout: text.into(),
        stderr: Vec::new(),
    };
    let answer = output("HTTP/1.1 403 Forbidden\r\nX: y\r\n\r\n{\"reason\":\"client.x\"}");
    for (said, is_so) in [
        ("403", true),
        ("403 client.x, as told", true),
        ("403, with `X: y`, no `Z`", true),
        ("200", false),
        ("403 client.y", false),
        ("403, with `Z`", false),
        ("403, no `X: y`", false),
        ("403, with `x: Y`", true),
        ("of course", false),
        ("", false),
    ] {
        let line = Line { command: "curl -i a:8080".to_owned(), said: said.to_owned() };
        assert_eq!(difference(&line, &answer).is_none(), is_so, "{said}");
    }
}
