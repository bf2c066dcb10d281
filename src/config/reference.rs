//! The reference of all keys, as Markdown and as a configuration file, made from [`super::file`].
