//! The file with the secrets of session tickets: a secret on each line, in hex or base64.
//!
//! Its content is never quoted in a message, only the number of a line.

use std::{path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::server::ProducesTickets;

use super::{TOP, secrets};
use crate::config::{
    decode::Sink,
    file::ListenerTls,
    report::Problem,
    snapshot::{SharedTickets, tickets},
};

/// Shortest secret; `openssl rand -hex 32` makes one.
const SECRET_BYTES_MIN: usize = 32;
/// Secrets of one file: one that seals, and those whose tickets are still taken.
const SECRETS_MAX: usize = 16;
const FIX: &str = "write a secret on each line, as `openssl rand -hex 32` makes them, the one that \
                   seals new tickets first";

/// Who makes the tickets of a listener; `asks`: it asks clients for certificates. `None`: nobody,
/// or after a report.
pub(super) fn of_listener(
    tls: &ListenerTls,
    asks: bool,
    folder: &Path,
    sink: &mut Sink,
) -> Option<Arc<dyn ProducesTickets>> {
    // A ticket would vouch for a certificate that another listener, or list, judged.
    let Some(file) = tls.ticket_secrets.some() else { return tickets().filter(|_| !asks) };
    if asks {
        let title = "`ticket_secrets` has no effect with `client_ca`: such a listener gives out no \
                     tickets, so that every client's certificate is judged anew";
        let problem = Problem::error(file.place().unwrap_or(TOP), title)
            .related(tls.client_ca.place().unwrap_or(TOP), "asks for certificates");
        sink.push(problem.fix("remove `ticket_secrets`"));
        return None;
    }
    let about = ("the ticket secrets", "pass for this gateway with clients that resume");
    let place = file.place().unwrap_or(TOP);
    let text = secrets::of_file(&file.value, about, place, folder, sink)?;
    match parsed(&text) {
        Ok(secrets) => Some(Arc::new(SharedTickets::new(&secrets)?)),
        Err(what) => {
            let title = format!("`{}` is not a file of ticket secrets: {what}", file.value);
            sink.push(Problem::error(place, title).fix(FIX));
            None
        }
    }
}

/// The secrets of a text, in order. Blank lines and those that begin with `#` are skipped.
fn parsed(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = decoded(line)
            .ok_or_else(|| format!("line {number} is neither hexadecimal nor base64"))?;
        if secret.len() < SECRET_BYTES_MIN {
            let n = secret.len();
            return Err(format!("line {number} has {n} bytes, fewer than {SECRET_BYTES_MIN}"));
        }
        if secrets.contains(&secret) {
            return Err(format!("line {number} has a secret that is there already"));
        }
        if secrets.len() == SECRETS_MAX {
            return Err(format!("it has more than {SECRETS_MAX} secrets"));
        }
        secrets.push(secret);
    }
    match secrets.is_empty() {
        true => Err("it has no secret".to_owned()),
        false => Ok(secrets),
    }
}

/// What could be either is hexadecimal: 32 bytes of base64 with such letters only are less likely
/// than any accident.
fn decoded(line: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        line.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        _ => STANDARD.decode(line).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_on_each_line() {
        let hex = "00ff".repeat(16);
        let base64 = STANDARD.encode([7; 48]);
        let text = format!("# the one that seals\n{hex}\r\n\n  {base64}\n{}", "AB".repeat(40));
        let wanted = [[0, 0xff].repeat(16), vec![7; 48], vec![0xab; 40]];
        assert_eq!(parsed(&text).expect("secrets"), wanted);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        let good = "0f".repeat(32);
        let many: String = (0..17).map(|n| format!("{n:064x}\n")).collect();
        let table = [
            (String::new(), "it has no secret"),
            ("# none\n\n".to_owned(), "it has no secret"),
            (format!("{good}\nsecret!"), "line 2 is neither hexadecimal nor base64"),
            (format!("\n{}", &good[..63]), "line 2 is neither hexadecimal nor base64"),
            (good[..62].to_owned(), "line 1 has 31 bytes, fewer than 32"),
            (STANDARD.encode([1; 20]), "line 1 has 20 bytes, fewer than 32"),
            (format!("{good}\n#\n{}", good.to_uppercase()), "line 3 has a secret that is there"),
            (many, "it has more than 16 secrets"),
        ];
        for (text, wanted) in table {
            let what = parsed(&text).expect_err(wanted);
            assert!(what.starts_with(wanted), "{what}");
            assert!(!what.contains("0f0f"), "{what}");
        }
    }
}
