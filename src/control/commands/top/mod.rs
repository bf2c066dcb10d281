//! `ringway top`: the running gateway in a terminal, anew every second.
//!
//! One thread asks the gateway, the main thread draws and heeds keys; an answer waits until it is
//! taken before the next is asked for, so that a slow terminal makes no queue. However the program
//! ends (key, signal, panic, terminal gone), the terminal is put back as it was.

mod draw;
mod figures;
mod view;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use ratatui::{
    buffer::Buffer,
    crossterm::event::{self, Event, KeyEventKind},
    layout::Rect,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::{Where, failed};
use crate::control::{admin::status::Status, cli::print};
use figures::Look;
use view::{Flow, View};

pub const HELP: &str = "\
Rates are between two looks, latencies of the last 10 s or so. Asks GET /status, so it
works with the read-only address too. Colours are off when NO_COLOR is set.

Keys: Tab pane, arrows or j k scroll, s sort, / filter, p pause, ? help, q quit.

Without a terminal, or with --once, it looks twice, prints one frame and ends.

Examples:
  ringway top
  ringway top --every 5
  ringway top --admin 127.0.0.1:9180
  ringway top --once | head -20";

/// How soon a signal is heeded while nothing else happens.
const TICK: Duration = Duration::from_millis(100);
/// Columns of a frame that is printed, where the terminal does not say.
const COLUMNS_DEFAULT: u16 = 100;

#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between two looks, 0.2 to 60.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    every: Duration,
    /// Print one frame as text and end.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    gateway: Where,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    if !(0.2..=60.0).contains(&seconds) {
        return Err("write 0.2 to 60".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Top {
    pub fn run(&self) -> ExitCode {
        // Before the terminal is touched: an error here is read like any other command's.
        let first = match look(&self.gateway) {
            Ok(first) => first,
            Err(e) => return failed(&e),
        };
        let is_coloured = std::env::var_os("NO_COLOR").is_none();
        let mut view = View::new(first, is_coloured);
        if self.once || !io::stdout().is_terminal() {
            thread::sleep(self.every);
            return match look(&self.gateway) {
                Ok(second) => {
                    view.take(Ok(second));
                    print(&printed(&view, columns()))
                }
                Err(e) => failed(&e),
            };
        }
        match self.live(view) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&format!("the terminal cannot be used: {e}")),
        }
    }

    fn live(&self, mut view: View) -> io::Result<()> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            signal_hook::flag::register(signal, ended.clone())?;
        }
        let (tell, answers) = sync_channel(0);
        let (gateway, every) = (self.gateway.clone(), self.every);
        thread::Builder::new()
            .name("look".to_owned())
            .spawn(move || look_on(&gateway, every, &tell))?;
        let mut screen = Screen::open()?;
        while !ended.load(Relaxed) {
            take_all(&answers, &mut view);
            screen.0.draw(|frame| draw::draw(&view, frame.area(), frame.buffer_mut()))?;
            if !event::poll(TICK)? {
                continue;
            }
            let Event::Key(key) = event::read()? else { continue };
            // A released key is reported by some terminals.
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match view.press(key) {
                Flow::Stay => {}
                Flow::Redraw => screen.clear()?,
                Flow::Quit => break,
            }
        }
        Ok(())
    }
}

/// The terminal while the program has it.
struct Screen(ratatui::DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Screen> {
        // Restores the terminal before a panic is printed, too.
        ratatui::try_init().map(Screen).inspect_err(|_| ratatui::restore())
    }

    /// Has the next frame drawn whole. `Terminal::clear` would ask the terminal where its cursor
    /// is, which not every terminal answers.
    fn clear(&mut self) -> io::Result<()> {
        let size = self.0.size()?;
        self.0.resize(Rect::new(0, 0, size.width, size.height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn look(gateway: &Where) -> Result<Look, String> {
    let answer = gateway.call("GET", "/status", None)?;
    if !answer.is_success() {
        return Err(answer.problem());
    }
    answer.json::<Status>().map(|status| Look { taken: Instant::now(), status })
}

/// Looks for as long as somebody takes the answers.
fn look_on(gateway: &Where, every: Duration, tell: &SyncSender<Result<Look, String>>) {
    loop {
        thread::sleep(every);
        if tell.send(look(gateway)).is_err() {
            return;
        }
    }
}

fn take_all(answers: &Receiver<Result<Look, String>>, view: &mut View) {
    while let Ok(answer) = answers.try_recv() {
        view.take(answer);
    }
}

fn columns() -> u16 {
    let of_terminal = || ratatui::crossterm::terminal::size().ok().map(|(columns, _)| columns);
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    given.or_else(of_terminal).unwrap_or(COLUMNS_DEFAULT).clamp(draw::COLUMNS_MIN, 500)
}

/// A frame that has room for everything, as text.
fn printed(view: &View, columns: u16) -> String {
    let area = Rect::new(0, 0, columns, draw::rows_for_all(view, columns));
    let mut buffer = Buffer::empty(area);
    draw::draw_all(view, area, &mut buffer);
    draw::lines(&buffer).fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests;
