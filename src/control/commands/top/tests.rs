use std::time::Duration;

use ratatui::text::Span;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};

use super::{
    figures::{Figures, Health, Mood, clean},
    view::Pane,
    *,
};

fn latency(count: u64, p99: f64) -> Value {
    json!({"seconds": 10.0, "count": count, "p50": p99 / 8.0, "p90": p99 / 2.0, "p99": p99,
           "p999": p99 * 3.0, "max": p99 * 5.0})
}

fn endpoint(name: &str, requests: u64) -> Value {
    json!({"name": name, "state": "up", "weight": 1, "configured_weight": 1, "avoided": false,
           "in_flight": 3, "idle": 8, "requests": requests, "failures": 0, "connects": 4,
           "connect_failures": 0, "reused": requests, "latency": latency(requests, 0.0021)})
}

fn route(name: &str, requests: u64) -> Value {
    json!({"name": name, "action": "forward", "upstream": "api", "requests": requests,
           "responses": {"2xx": requests}, "latency": latency(requests, 0.0034)})
}

/// An answer of `GET /status` of a gateway that has served `requests`.
fn answer(workers: u64, routes: &[&str], requests: u64) -> Value {
    let worker = |n: u64| {
        json!({"worker": n, "core": n, "io": "io_uring", "generation": 3, "state": "up",
               "connections_open": 20, "requests": requests / workers,
               "cpu_seconds": 0.5 * requests as f64 / 10_000.0, "beat_age": 0.01})
    };
    json!({
        "version": "0.1.0", "pid": 7, "started": 1000, "now": 5000, "state": "ready",
        "generation": 3,
        "configuration": {"file": "/etc/ringway.toml", "loaded": 1000, "history": []},
        "totals": {"connections": 10, "connections_open": 1234, "connections_shed": 0,
            "tunnels_open": 0, "requests": requests, "responses": {"2xx": requests},
            "refusals": {}, "received_bytes": 1, "sent_bytes": 1, "upstream_connects": 1,
            "retries": 0, "panics": 0},
        "latency": latency(requests, 0.00413), "overhead": latency(requests, 0.000248),
        "workers": (0..workers).map(worker).collect::<Vec<_>>(),
        "listeners": [],
        "routes": routes.iter().map(|name| route(name, requests)).collect::<Vec<_>>(),
        "upstreams": [{"name": "api", "balance": "round_robin", "requests": requests,
            "retries": 0, "latency": latency(requests, 0.002),
            "endpoints": [endpoint("10.0.0.1:80", requests), endpoint("10.0.0.2:80", requests)]}],
        "access_logs": [], "limits": {"connections_max": 20000}, "memory": {"resident_bytes": 1}, "descriptors": {"open": 9, "max": 99},
    })
}

/// Two looks, one second apart.
fn looks(before: Value, now: Value) -> (Look, Look) {
    let look = |taken, value| Look { taken, status: serde_json::from_value(value).unwrap() };
    let begun = Instant::now();
    (look(begun, before), look(begun + Duration::from_secs(1), now))
}

fn view_of(before: Value, now: Value) -> View {
    let (before, now) = looks(before, now);
    let mut view = View::new(before, true);
    view.take(Ok(now));
    view
}

fn view() -> View {
    let names = ["orders", "catalogue", "search"];
    view_of(answer(2, &names, 0), answer(2, &names, 10_000))
}

fn frame(view: &View, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw::draw(view, frame.area(), frame.buffer_mut())).unwrap();
    draw::lines(terminal.backend().buffer()).collect()
}

fn press(view: &mut View, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            c => KeyCode::Char(c),
        };
        assert_eq!(view.press(KeyEvent::new(code, KeyModifiers::NONE)), Flow::Stay);
    }
}

#[test]
fn a_frame_of_80_by_24() {
    let mut found = frame(&view(), 80, 24);
    found.iter_mut().for_each(|line| *line = line.trim_end().to_owned());
    let expected = "
 Ringway ● ready   generation 3   up 1h 6m   1,234 clients
 requests 10.0k/s   5xx 0/s   p50 516 µs   p99 4.1 ms   overhead p99 248 µs
 nothing needs attention
─ Cores, busiest 1.00 × the mean, by number ────────────────────────────────────
 core 0   BAR
 core 1   BAR
▶ Routes 3, by requests ────────────────────────────────────────────────────────
 Route                Action                Requests      4xx      5xx      p99
 orders               forward api              10.0k        0        0   3.4 ms
 catalogue            forward api              10.0k        0        0   3.4 ms
 search               forward api              10.0k        0        0   3.4 ms
";
    for (at, line) in expected.lines().skip(1).enumerate() {
        let bar = "█".repeat(23) + &"·".repeat(23) + "  50 %   5.00k/s     20";
        assert_eq!(found[at], line.replace("BAR", &bar), "line {at}");
    }
    assert_eq!(
        found[19],
        "─ Endpoints 2, by state ────────────────────────────────────────────────────────"
    );
    assert!(found[21].starts_with(" 10.0.0.1:80"), "{}", found[21]);
    assert!(found[21].contains("● up") && found[21].contains("10.0k"), "{}", found[21]);
    assert!(found[23].starts_with(" q quit"), "{}", found[23]);
}

#[test]
fn every_size_shows_what_it_has_room_for() {
    let names: Vec<String> = (0..200).map(|n| format!("route-{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let view = view_of(answer(64, &names, 0), answer(64, &names, 6400));
    for (columns, rows) in [(72, 14), (80, 24), (120, 40), (200, 60), (500, 200)] {
        let lines = frame(&view, columns, rows);
        let text = lines.join("\n");
        let shown = lines.iter().filter(|line| line.contains("route-")).count();
        assert!(text.contains("route-000") && text.contains("10.0.0.1:80"), "{columns} × {rows}");
        assert!(lines.iter().all(|line| Span::raw(line.as_str()).width() <= usize::from(columns)));
        assert!(text.contains(&format!("Routes 1 to {shown} of 200")), "{shown}:\n{text}");
        // Wide frames have more columns, and no frame loses one at its edge.
        assert_eq!(text.contains("Reuse"), columns >= 110);
        let head = lines.iter().find(|line| line.contains("Upstream")).unwrap();
        assert!(head.trim_end().ends_with("p99"), "{head}");
    }
    let cores = |columns| frame(&view, columns, 60).iter().filter(|l| l.contains("core ")).count();
    assert!(cores(200) <= 20 && cores(80) <= 20, "cores leave room for the tables");
}

#[test]
fn what_is_too_small_says_so() {
    let view = view();
    for (columns, rows) in [(71, 24), (80, 13), (20, 5), (1, 1), (0, 0)] {
        let text = frame(&view, columns, rows).join(" ");
        assert!(!text.contains("orders"), "{text}");
        assert_eq!(text.contains("needs 72"), columns >= 20, "{text}");
    }
}

#[test]
fn hostile_names_do_no_harm() {
    let evil = "\u{1b}[2J\u{7}\u{202e}evil\r\n\tname\u{200b}\u{feff}";
    let wide = "注文".repeat(40);
    let joined = "e\u{301}".repeat(90);
    let names = [evil, &wide, &joined, ""];
    let mut before = answer(2, &names, 0);
    let mut now = answer(2, &names, 1000);
    for look in [&mut before, &mut now] {
        look["upstreams"][0]["name"] = evil.into();
        look["upstreams"][0]["endpoints"][0]["name"] = wide.as_str().into();
        look["state"] = "\u{1b}c".into();
        look["workers"][0]["state"] = "\u{1b}c".into();
    }
    let view = view_of(before, now);
    for (columns, rows) in [(72, 14), (80, 24), (81, 25), (120, 40), (200, 60)] {
        for line in frame(&view, columns, rows) {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(!line.contains(['\u{202e}', '\u{200b}', '\u{feff}']), "{line:?}");
            assert_eq!(Span::raw(line.as_str()).width(), usize::from(columns), "{line:?}");
        }
    }
    assert!(!printed(&view, 80).contains(['\u{1b}', '\u{7}', '\r', '\t']));
    assert_eq!(clean("a\u{1b}b\u{202e}c é注"), "a·b·c é注");
}

#[test]
fn endpoints_tell_how_they_are() {
    let before = answer(1, &["r"], 0);
    let mut now = answer(1, &["r"], 1000);
    let health = |now: &Value| {
        let (before, now) = looks(before.clone(), now.clone());
        let figures = Figures::between(Some(&before), &now);
        (figures.endpoints[0].health, figures.matters)
    };
    assert_eq!(health(&now), (Health::Up, Vec::new()));
    let endpoint = |now: &mut Value, key: &str, value: Value| {
        now["upstreams"][0]["endpoints"][0][key] = value;
    };
    endpoint(&mut now, "state", "drain".into());
    assert_eq!(health(&now).0, Health::Draining);
    endpoint(&mut now, "failures", 5.into());
    let (found, matters) = health(&now);
    assert_eq!((found, matters[0].mood), (Health::Failing, Mood::Warn));
    assert_eq!(matters[0].words, "failing: api/10.0.0.1:80");
    endpoint(&mut now, "avoided", true.into());
    assert_eq!((health(&now).0, health(&now).1[0].mood), (Health::Avoided, Mood::Bad));
    endpoint(&mut now, "state", "down".into());
    assert_eq!(health(&now).0, Health::Down);
}

#[test]
fn another_process_begins_anew() {
    let mut now = answer(1, &["r"], 10);
    now["pid"] = 8.into();
    let (before, now) = looks(answer(1, &["r"], 1000), now);
    let figures = Figures::between(Some(&before), &now);
    assert_eq!((figures.requests, figures.routes[0].requests), (None, None));
    assert_eq!((figures.cores[0].load, figures.imbalance), (None, None));
}

#[test]
fn keys_filter_sort_scroll_and_pause() {
    let names: Vec<String> = (0..50).map(|n| format!("route-{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut now = answer(2, &names, 1000);
    now["routes"][7]["responses"] = json!({"2xx": 900, "5xx": 100});
    let mut view = view_of(answer(2, &names, 0), now);
    let first = |view: &View| {
        let lines = frame(view, 80, 24);
        lines.iter().find(|line| line.contains("route-")).map(|line| line[1..9].to_owned())
    };
    assert_eq!(first(&view).unwrap(), "route-00");
    press(&mut view, "jjj");
    assert_eq!(first(&view).unwrap(), "route-03");
    press(&mut view, "G");
    let end = first(&view).unwrap();
    press(&mut view, "k");
    assert!(first(&view).unwrap() < end, "one step back from the end is seen");
    press(&mut view, "s");
    assert_eq!((first(&view).unwrap().as_str(), view.order(Pane::Routes)), ("route-07", "5xx"));
    press(&mut view, "/TE-3q");
    assert_eq!(view.routes().len(), 0, "`q` is part of the filter");
    assert_eq!(view.press(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE)), Flow::Stay);
    press(&mut view, "\n");
    assert_eq!((view.routes().len(), view.endpoints().len()), (10, 0));
    press(&mut view, "\u{1b}p\t");
    assert_eq!((view.routes().len(), view.focus), (50, Pane::Endpoints));
    let (_, later) = looks(answer(2, &names, 0), answer(2, &names, 90_000));
    view.take(Ok(later));
    assert_eq!(view.figures.requests, Some(1000.0), "paused");
    press(&mut view, "?");
    assert!(frame(&view, 80, 24).join("\n").contains("the next pane"));
    press(&mut view, "q");
    assert!(!view.is_help, "any key closes the help");
    let quit = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
    assert_eq!(view.press(quit), Flow::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.press(interrupt), Flow::Quit);
}

#[test]
fn a_lost_gateway_is_said_and_forgotten() {
    let mut view = view();
    view.take(Err("no gateway answers\nTried: x".to_owned()));
    let lines = frame(&view, 80, 24);
    assert!(lines[0].contains("■ connection lost"), "{}", lines[0]);
    assert!(lines[2].contains("no gateway answers Tried: x"), "{}", lines[2]);
    assert!(lines[6].contains("Routes 3"), "what was known stays");
    let (_, look) = looks(answer(2, &[], 0), answer(2, &[], 20_000));
    view.take(Ok(look));
    assert!(frame(&view, 80, 24)[0].contains("● ready"));
}

#[test]
fn seconds_between_looks_have_bounds() {
    assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    for wrong in ["0", "61", "-1", "NaN", "inf", "soon", ""] {
        assert!(seconds(wrong).is_err(), "{wrong}");
    }
}
