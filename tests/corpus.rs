//! Replays the committed corpora against the fuzz targets' properties.

#[path = "corpus/properties.rs"]
mod properties;

use std::path::Path;

#[test]
fn every_committed_input_keeps_its_properties() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for (name, property) in properties::TARGETS {
        let mut count = 0;
        for entry in std::fs::read_dir(root.join(name)).expect("each target has a corpus") {
            let path = entry.expect("a readable corpus").path();
            let bytes = std::fs::read(&path).expect("a readable input");
            // Shown only when the property panics.
            println!("{}", path.display());
            property(&bytes);
            // Cheap variations, so that even a plain test run explores a little.
            let step = bytes.len() / 100 + 1;
            for at in (0..bytes.len()).step_by(step) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                property(&changed);
                changed.remove(at);
                property(&changed);
            }
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}
