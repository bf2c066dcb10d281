//! `loadtest report`: from the raw data of `scripts/compare` to tables and plots.
//!
//! Owns everything between the file of raw data and what people read. Every figure printed here is
//! computed from rounds that are in that file; no round is left out. Reads and writes files, and
//! measures nothing.

mod agreement;
mod charts;
mod curve;
mod data;
mod figures;
mod html;
mod markdown;
mod summary;
mod tables;
mod verdict;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use data::Results;

/// What `loadtest report` is asked for.
#[derive(Args)]
pub struct Report {
    /// Raw data of scripts/compare (JSON)
    input: PathBuf,
    /// Write tables to this file, "-" for standard output
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write a page with plots, which needs nothing but itself, to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Only the tables of cases, without the introduction
    #[arg(long)]
    brief: bool,
    /// Raw data of an earlier run: print whether the two agree within the spread they state
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

impl Report {
    /// Reads the raw data and writes what was asked for.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or the raw data is not what `scripts/compare` of this
    /// version writes; the message names the file.
    pub fn run(&self) -> io::Result<()> {
        let results = read(&self.input)?;
        if self.markdown.is_none() && self.html.is_none() && self.against.is_none() {
            return Err(io::Error::other("nothing to write: give --markdown, --html or --against"));
        }
        if let Some(path) = &self.markdown {
            write(path, &markdown::page(&results, self.brief))?;
        }
        if let Some(path) = &self.html {
            write(path, &html::page(&results)?)?;
        }
        if let Some(path) = &self.against {
            write(Path::new("-"), &agreement::page(&read(path)?, &results))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Results> {
    let wrong = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", path.display()));
    let text = fs::read_to_string(path).map_err(|e| wrong(&e))?;
    let results: Results = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
    if results.schema != data::SCHEMA {
        let (found, known) = (&results.schema, data::SCHEMA);
        return Err(wrong(&format!(
            "is of schema `{found}`, this program reads `{known}`: run scripts/compare again"
        )));
    }
    Ok(results)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if path.as_os_str() == "-" {
        use io::Write as _;
        return io::stdout().lock().write_all(text.as_bytes());
    }
    fs::write(path, text).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}
