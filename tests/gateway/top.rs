//! `ringway top` in a real terminal (that of util-linux's `script`): it draws, heeds keys and
//! signals, and leaves the terminal as it was.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{Gateway, eventually};

const TOML: &str = "[[routes]]\nname = \"greeting\"\npath = \"/ok\"\nrespond = { body = \"ok\" }\n";

/// The program in a terminal of this size.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn run(gateway: &Gateway, size: &str) -> Terminal {
        // The shell says which process it becomes, and afterwards whether the terminal's settings
        // are those from before.
        let script = format!(
            "stty {size}; before=$(stty -a); sh -c 'echo \"pid=$$;\"; exec {} top --every 0.2'; \
             echo \"code=$?;\"; test \"$(stty -a)\" = \"$before\" && echo restored",
            env!("CARGO_BIN_EXE_ringway")
        );
        let mut child = Command::new("script")
            .args(["-qefc", &script, "/dev/null"])
            .current_dir(gateway.dir())
            .env("RUNTIME_DIRECTORY", gateway.dir())
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux has `script`");
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let own = shown.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut part) {
                own.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..n]));
            }
        });
        Terminal { child, keys, shown }
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        let mut last = String::new();
        eventually(&format!("`{text}` shown"), || {
            last = words(&self.shown.lock().unwrap());
            last.contains(text)
        });
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn pid(&self) -> i32 {
        let shown = self.shown.lock().unwrap();
        let (_, rest) = shown.split_once("pid=").expect("waited for");
        rest.split(';').next().unwrap().parse().unwrap()
    }

    /// The program has ended with 0 and left the alternate screen and the terminal's settings.
    #[track_caller]
    fn ended_well(mut self) {
        self.wait_for("code=0;");
        self.wait_for("restored");
        assert!(self.shown.lock().unwrap().contains("\u{1b}[?1049l"), "the alternate screen stays");
        assert!(self.child.wait().unwrap().success());
    }
}

/// What is shown, without the sequences that steer the terminal. Blanks are often not written but
/// stepped over, so a step is a blank.
fn words(shown: &str) -> String {
    let mut out = String::new();
    for (at, part) in shown.split("\u{1b}[").enumerate() {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).filter(|_| at > 0);
        if end.is_some_and(|end| part[end..].starts_with('H')) {
            out.push(' ');
        }
        out.push_str(end.map_or(part, |end| &part[end + 1..]));
    }
    out
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_draws_and_heeds_keys() {
    let gateway = Gateway::start(TOML);
    for size in ["rows 24 cols 80", "rows 60 cols 200"] {
        let mut terminal = Terminal::run(&gateway, size);
        terminal.wait_for("nothing needs attention");
        terminal.wait_for("greeting");
        gateway.client().get("/missing");
        terminal.wait_for("(no route)");
        terminal.press("?");
        terminal.wait_for("the next pane");
        terminal.press("x/gree");
        // Only what changes is drawn; Ctrl-L has everything drawn.
        terminal.press("\u{c}");
        terminal.wait_for("filter: gree_");
        terminal.press("\r\u{c}");
        terminal.wait_for("with \"gree\"");
        terminal.press("q");
        terminal.ended_well();
    }
}

#[test]
fn signals_and_ctrl_c_leave_the_terminal_as_it_was() {
    let gateway = Gateway::start(TOML);
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let terminal = Terminal::run(&gateway, "rows 24 cols 80");
        terminal.wait_for("greeting");
        kill(Pid::from_raw(terminal.pid()), signal).unwrap();
        terminal.ended_well();
    }
    let mut terminal = Terminal::run(&gateway, "rows 24 cols 80");
    terminal.wait_for("greeting");
    terminal.press("\u{3}");
    terminal.ended_well();
}

#[test]
fn a_terminal_too_small_says_so() {
    let gateway = Gateway::start(TOML);
    let mut terminal = Terminal::run(&gateway, "rows 10 cols 40");
    terminal.wait_for("needs");
    terminal.press("q");
    terminal.ended_well();
}

#[test]
fn without_a_terminal_it_prints_one_frame() {
    let gateway = Gateway::start(TOML);
    gateway.client().get("/ok");
    let output = gateway.command(&["top", "--every", "0.2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with(" Ringway ● ready   generation 1   up "), "{text}");
    assert!(text.contains(" greeting ") && !text.contains('\u{1b}'), "{text}");
    let output = gateway.command(&["top", "--once", "--admin", "./nobody.sock"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("nobody.sock"), "{text}");
}
