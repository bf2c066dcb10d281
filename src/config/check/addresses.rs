//! Lists of addresses, from the configuration and from files, and what names them.
//!
//! A list is read and sorted once, however many policies name it.

use std::{path::Path, sync::Arc};

use ipnet::IpNet;

use super::{TOP, rules::no_such};
use crate::{
    config::{
        bounded,
        decode::{At, Sink, short},
        file::{self, AddressList, File},
        report::Problem,
        values::{AddressSource, Network},
    },
    policy::addresses::{Addresses, Lists, NamedNetworks, Networks},
};

/// Networks of one list, however they are written.
const NETWORKS_MAX: usize = 1_000_000;
/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Wrong lines of one file that are reported one by one.
const LINES_REPORTED_MAX: usize = 5;

/// The lists of a file, by name. One that is wrong is there without networks, and reported.
#[derive(Default)]
pub(super) struct Known(Vec<NamedNetworks>);

/// Reads every list.
pub(super) fn lists(file: &File, folder: &Path, sink: &mut Sink) -> Known {
    let one = |(name, list): &(At<String>, Option<AddressList>)| {
        let networks = list.as_ref().map(|list| networks(name, list, folder, sink));
        let networks = Arc::new(networks.unwrap_or_default());
        NamedNetworks { name: name.value.as_str().into(), networks }
    };
    Known(file.address_lists.value.0.iter().map(one).collect())
}

fn networks(name: &At<String>, list: &AddressList, folder: &Path, sink: &mut Sink) -> Networks {
    let place = name.place().unwrap_or(TOP);
    let mut all: Vec<IpNet> = list.networks.iter().map(|network| network.value.0).collect();
    for file in list.files.iter() {
        if let Some(text) = read(file, folder, sink) {
            lines(&text, file, &mut all, sink);
        }
    }
    if all.len() > NETWORKS_MAX {
        let title = format!("the list has {} networks, more than {NETWORKS_MAX}", all.len());
        sink.push(
            Problem::error(place, title).fix("join neighbouring networks, or split the list"),
        );
        all.clear();
    }
    all.into_iter().collect()
}

/// The networks of a file's lines.
fn lines(text: &str, file: &At<String>, all: &mut Vec<IpNet>, sink: &mut Sink) {
    let place = file.place().unwrap_or(TOP);
    let mut wrong = 0;
    for (at, line) in text.lines().enumerate() {
        let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match Network::of_line(entry) {
            Ok(network) => all.push(network),
            Err(fix) => {
                wrong += 1;
                if wrong <= LINES_REPORTED_MAX {
                    let (line, entry) = (at + 1, short(entry));
                    let title = format!("{}:{line}: `{entry}` is no network", file.value);
                    sink.push(
                        Problem::error(place, title)
                            .fix(format!("in line {line}, {}", fix.replace('"', ""))),
                    );
                }
            }
        }
    }
    if wrong > LINES_REPORTED_MAX {
        let more = wrong - LINES_REPORTED_MAX;
        let title = format!("{}: {more} more lines are no networks", file.value);
        let fix = "write one network on each line, such as 10.0.0.0/8, and # before a comment";
        sink.push(Problem::error(place, title).fix(fix));
    }
}

fn read(file: &At<String>, folder: &Path, sink: &mut Sink) -> Option<String> {
    let path = folder.join(&file.value);
    match bounded::read(&path, FILE_BYTES_MAX) {
        // What is no text is no network either, and is reported with its line.
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            let title = format!("cannot read the addresses in `{}`: {error}", path.display());
            let fix = "write a path relative to this configuration, or an absolute one; the \
                       gateway's user must be able to read it";
            sink.push(Problem::error(file.place().unwrap_or(TOP), title).fix(fix));
            None
        }
    }
}

impl Known {
    /// What `sources` name.
    pub fn find(&self, sources: &[At<AddressSource>], sink: &mut Sink) -> Lists {
        let mut own = Vec::new();
        let mut found: Vec<NamedNetworks> = Vec::new();
        for source in sources {
            match &source.value {
                AddressSource::Network(network) => own.push(*network),
                AddressSource::List(name) => match self.named(name) {
                    Some(list) => found.push(list.clone()),
                    None => {
                        let names: Vec<&str> = self.0.iter().map(|list| &*list.name).collect();
                        let place = source.place().unwrap_or(TOP);
                        let what = "list of addresses";
                        sink.push(no_such(what, "address_lists", name, place, &names));
                    }
                },
            }
        }
        if !own.is_empty() {
            let name = match &own[..] {
                [one] => one.to_string(),
                [first, rest @ ..] => format!("{first} and {} more", rest.len()),
                [] => String::new(),
            };
            // These are few, and looked at first.
            let networks = Arc::new(own.into_iter().collect());
            found.insert(0, NamedNetworks { name: name.into(), networks });
        }
        Lists(found.into())
    }

    fn named(&self, name: &str) -> Option<&NamedNetworks> {
        self.0.iter().find(|list| &*list.name == name)
    }

    /// The policy `addresses`.
    pub fn policy(
        &self,
        written: &At<Option<file::Addresses>>,
        sink: &mut Sink,
    ) -> Option<Addresses> {
        let rule = written.value.as_ref()?;
        let is_wrong = rule.allow.is_wrong() || rule.deny.is_wrong();
        if rule.allow.is_empty() && rule.deny.is_empty() && !is_wrong {
            let place = written.place().unwrap_or(TOP);
            let title = "`addresses` says neither who is served nor who is not";
            sink.push(Problem::error(place, title).fix("add allow = [\"10.0.0.0/8\"] or `deny`"));
        }
        let allow = self.find(&rule.allow, sink);
        Some(Addresses {
            allow: (!rule.allow.is_empty()).then_some(allow),
            deny: self.find(&rule.deny, sink),
            shadow: *rule.shadow,
        })
    }
}
