//! What a syslog wants before each line. Facility local7, severity informational.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::telemetry::access_log::Stamp;

/// Facility 23 times 8 plus severity 6 (RFC 5424 §6.2.1).
const PRIORITY: &str = "<190>";
const NAME: &str = "ringway";
/// RFC 5424 §6.2.4
const HOST_BYTES_MAX: usize = 255;

/// The text before each line.
pub struct Header {
    text: Vec<u8>,
    /// Where the time begins in `text`, when there is one.
    time: Option<(usize, Stamp)>,
}

impl Header {
    /// For the syslog of this machine, in the form of syslog(3). Without time, which such a syslog
    /// takes for local time or puts in itself (RFC 3164 §4.3.2); it knows the host.
    pub fn local() -> Header {
        let text = format!("{PRIORITY}{NAME}[{}]: ", std::process::id());
        Header { text: text.into_bytes(), time: None }
    }

    /// `VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA` (RFC 5424 §6.2, §6.3).
    pub fn remote() -> Header {
        let host = rustix::system::uname();
        let host: String = host
            .nodename()
            .to_string_lossy()
            .chars()
            .filter(char::is_ascii_graphic)
            .take(HOST_BYTES_MAX)
            .collect();
        let host = if host.is_empty() { "-" } else { &host };
        let time = String::from_utf8_lossy(Stamp::EPOCH.rfc3339()).into_owned();
        let before = format!("{PRIORITY}1 ");
        let text = format!("{before}{time} {host} {NAME} {} access - ", std::process::id());
        Header { text: text.into_bytes(), time: Some((before.len(), Stamp::EPOCH)) }
    }

    /// Takes the time as of now (RFC 5424 §6.2.3).
    pub fn renew(&mut self) {
        if let Some((at, stamp)) = &mut self.time {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            stamp.set(now.as_millis() as u64);
            let text = stamp.rfc3339();
            self.text[*at..*at + text.len()].copy_from_slice(text);
        }
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let pid = std::process::id();
        assert_eq!(Header::local().text(), format!("<190>ringway[{pid}]: ").as_bytes());
        let mut header = Header::remote();
        header.renew();
        let text = String::from_utf8_lossy(header.text()).into_owned();
        assert!(
            text.starts_with("<190>1 2") && text.ends_with(&format!(" ringway {pid} access - "))
        );
        assert_eq!(text.split(' ').count(), 8, "{text}");
    }
}
