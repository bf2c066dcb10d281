//! The configuration in force: every key, written or not, as `GET /config` and `ringway diff` show
//! it.
//!
//! Made anew from the text whenever somebody asks, so that a large configuration is not kept twice.
//! Defaults that depend on other keys (names, `max_body`, `mode`) are filled in; values of type
//! [`super::values::Secret`] are not shown.

use toml::{Table, Value};

use super::{
    Snapshot,
    decode::{At, Decode, Sink},
    decoded,
    file::{File, UNIX_MODE_DEFAULT},
    values::{BindAddress, FileMode, Name},
};

/// Every key of `snapshot` that has a value, as a TOML table that is itself a configuration (but
/// for secrets).
pub fn effective(snapshot: &Snapshot) -> Table {
    // The text made this snapshot, so it can be decoded; without one there is nothing to show.
    let file = decoded(&snapshot.text, &mut Sink::default());
    match file.map(|file| complete(file, snapshot).effective()) {
        Some(Some(Value::Table(mut table))) => {
            remove_idle_keys(&mut table);
            table
        }
        _ => Table::new(),
    }
}

/// Keys that do something only with `upstream`, and that `check` refuses without it.
const FORWARDING_KEYS: [&str; 6] =
    ["strip_prefix", "timeout", "upgrade", "websocket_ping", "grpc_web", "tries"];

fn remove_idle_keys(table: &mut Table) {
    let routes = table.get_mut("routes").and_then(Value::as_array_mut);
    let tables = routes.into_iter().flatten().filter_map(Value::as_table_mut);
    for route in tables.filter(|route| !route.contains_key("upstream")) {
        FORWARDING_KEYS.iter().for_each(|key| drop(route.remove(*key)));
    }
}

/// Fills in what is derived from other keys where the file leaves it out.
fn complete(mut file: File, snapshot: &Snapshot) -> File {
    let name = |name: &str| Some(Name(name.to_owned()));
    for (listener, rule) in file.listeners.value.iter_mut().zip(&snapshot.listeners) {
        listener.value.name.value = name(&rule.name);
        if matches!(*listener.value.bind, BindAddress::Unix(_)) {
            listener.value.mode.value.get_or_insert(FileMode(UNIX_MODE_DEFAULT));
        }
    }
    for log in &mut file.access_logs.value {
        let target = log.value.to.bare();
        log.value.name.value.get_or_insert(Name(target));
    }
    let body_max: &At<_> = &file.limits.value.body;
    let ping = *file.timeouts.value.websocket_ping;
    for (route, rule) in file.routes.value.iter_mut().zip(&snapshot.routes) {
        route.value.name.value = name(&rule.name);
        route.value.max_body.value.get_or_insert(body_max.value);
        if *route.value.upgrade {
            route.value.websocket_ping.value.get_or_insert(ping);
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{from_text, reference};

    const SMALL: &str = "[[listeners]]\nbind = \"unix:/run/gw.sock\"\n\
        [[routes]]\npath = \"/a\"\nupstream = \"app\"\nheaders = { X-A = { regex = \"b|c\" } }\n\
        [upstreams.app]\nendpoints = [{ address = \"127.0.0.1:80\", weight = 3 }]\n\
        [[access_logs]]\nto = \"stdout\"\nformat = { template = \"${status}\" }\n\
        [limits]\nbody = \"10MiB\"\n";

    fn of(text: &str) -> Table {
        // Files are looked for in the current directory; the reference file is in config/.
        let text = text.replace("\"tls/", "\"config/tls/");
        let text = text.replace("\"openapi/", "\"config/openapi/");
        effective(&from_text("small.toml", &text).expect("a good configuration").0)
    }

    #[test]
    fn defaults_are_filled_in() {
        let shown = of(SMALL);
        let route = &shown["routes"][0];
        assert_eq!(route["name"].as_str(), Some("/a"));
        assert_eq!(route["max_body"].as_str(), Some("10MiB"), "that of limits.body");
        assert_eq!(route["tries"].as_integer(), Some(2));
        assert_eq!(route["headers"]["X-A"]["regex"].as_str(), Some("b|c"));
        assert_eq!(shown["access_logs"][0]["name"].as_str(), Some("stdout"));
        assert_eq!(shown["access_logs"][0]["format"]["template"].as_str(), Some("${status}"));
        assert_eq!(shown["listeners"][0]["mode"].as_str(), Some("0660"));
        assert_eq!(shown["upstreams"]["app"]["pool"]["idle_max"].as_integer(), Some(256));
        assert_eq!(shown["upstreams"]["app"]["endpoints"][0]["weight"].as_integer(), Some(3));
        assert_eq!(shown["timeouts"]["head"].as_str(), Some("10s"));
    }

    #[test]
    fn what_is_shown_is_a_configuration_that_shows_the_same() {
        for text in [SMALL, &reference::file()] {
            let shown = of(text);
            let again = of(&toml::to_string_pretty(&shown).expect("TOML"));
            assert_eq!(shown, again);
        }
    }
}
