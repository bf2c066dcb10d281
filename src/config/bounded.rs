//! Reading files that may not be larger than something. Also one that grows meanwhile, or does not
//! say how large it is, is read no further.

use std::{
    fs::File,
    io::{Error, Read, Result},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The bytes of a file. The error of one that is too large says how large it may be.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    read_with_mode(path, bytes_max).map(|(bytes, _)| bytes)
}

/// The text of a file, and its mode.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<(String, u32)> {
    let (bytes, mode) = read_with_mode(path, bytes_max)?;
    // As the standard library says it of a file that it reads as text.
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::new(std::io::ErrorKind::InvalidData, "stream did not contain valid UTF-8")
    })?;
    Ok((text, mode))
}

fn read_with_mode(path: &Path, bytes_max: u64) -> Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mut bytes = Vec::new();
    if meta.len() <= bytes_max {
        bytes.reserve_exact(usize::try_from(meta.len()).unwrap_or(0));
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if meta.len().max(bytes.len() as u64) > bytes_max {
        return Err(Error::other(format!("larger than {}", words(bytes_max))));
    }
    Ok((bytes, meta.permissions().mode()))
}

fn words(bytes: u64) -> String {
    match bytes {
        mib if mib % (1 << 20) == 0 => format!("{} MiB", mib >> 20),
        kib => format!("{} KiB", kib >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        for (bytes, bytes_max, wanted) in [
            (1024, 1024, Ok(1024)),
            (1025, 1024, Err("larger than 1 KiB")),
            (0, 1 << 20, Ok(0)),
            ((1 << 20) + 1, 1 << 20, Err("larger than 1 MiB")),
        ] {
            std::fs::write(&path, vec![b'a'; bytes]).expect("a file");
            let told = read(&path, bytes_max).map(|bytes| bytes.len());
            let told = told.map_err(|error| error.to_string());
            assert_eq!(told, wanted.map_err(str::to_owned), "{bytes}");
        }
        // It has no end, and says that it has no bytes.
        let endless = read(Path::new("/dev/zero"), 4096).map(|bytes| bytes.len());
        let endless = endless.map_err(|error| error.to_string());
        assert_eq!(endless, Err("larger than 4 KiB".to_owned()));
        assert!(read(&folder.path().join("none"), 1).is_err());
        std::fs::write(&path, [0xff]).expect("a file");
        assert!(read_text(&path, 1024).is_err());
    }
}
