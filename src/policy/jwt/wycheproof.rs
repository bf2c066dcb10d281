//! Project Wycheproof's vectors for JSON Web Signatures and Keys, where `RINGWAY_WYCHEPROOF` names
//! the folder `testvectors_v1` of a copy of them (github.com/C2SP/wycheproof).

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{Algorithm, KeySet, jws::Token};

/// Vectors whose stated result is not ours, and why.
const OTHERWISE: [(&str, u64, &str); 6] = [
    ("signature", 346, "PS384 with a key whose alg is PS256; vector 340 refuses the same"),
    ("signature", 350, "as 346"),
    ("signature", 367, "the padding it speaks of is not there: it is vector 357, which is valid"),
    ("signature", 370, "as 367"),
    ("signature", 372, "a character that base64url does not have; vectors 361 to 371 refuse it"),
    ("signature", 373, "as 372"),
];

fn is_accepted(group: &Value, jws: &str) -> bool {
    let keys = group.get("public").unwrap_or(&group["private"]);
    let mut keys = keys.clone();
    // The vectors for encryption of keys have no kind.
    if keys.get("keys").is_none() && keys.get("kty").is_none() {
        let kind = if keys.get("n").is_some() { "RSA" } else { "EC" };
        keys["kty"] = kind.into();
    }
    let read = KeySet::from_json(keys.to_string().as_bytes());
    // As keys of a configuration: one that cannot be used is a mistake.
    let whole = read.ok().filter(|(_, left_out)| left_out.is_empty());
    let Some(keys) = whole.and_then(|(keys, _)| KeySet::of(keys).ok()) else { return false };
    let algorithms: Vec<Algorithm> = Algorithm::ALL.iter().map(|(one, _)| *one).collect();
    Token::read(jws.as_bytes(), &algorithms).is_some_and(|token| token.verify(&keys).is_ok())
}

#[test]
fn every_vector_gives_its_result() {
    let Some(folder) = std::env::var_os("RINGWAY_WYCHEPROOF") else { return };
    let mut counts: BTreeMap<(&str, bool), u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for name in ["signature", "key", "crypto"] {
        let file = Path::new(&folder).join(format!("json_web_{name}_test.json"));
        let text = std::fs::read(&file).expect("the vectors are there");
        let json: Value = serde_json::from_slice(&text).expect("JSON");
        for group in json["testGroups"].as_array().expect("groups") {
            for test in group["tests"].as_array().expect("tests") {
                // What is encrypted is no token that a gateway could read.
                let Some(jws) = test["jws"].as_str() else { continue };
                let id = test["tcId"].as_u64().expect("a number");
                let wanted = test["result"] == "valid";
                let got = is_accepted(group, jws);
                *counts.entry((name, wanted)).or_default() += 1;
                let is_known = OTHERWISE.iter().any(|(of, own, _)| (*of, *own) == (name, id));
                if (got != wanted) != is_known {
                    wrong.push(format!("{name} {id} {}: {got}", test["comment"]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(counts.values().sum::<u32>() > 400, "{counts:?}");
}
