//! Lists of addresses as written, and the policy that asks them, see [`super`].

use crate::{
    config::{
        decode::At,
        values::{AddressSource, Network},
    },
    section,
};

section! {
    /// A list of addresses that policies name. At most 1,000,000 networks in all. See
    /// docs/address-lists.md.
    pub struct AddressList {
        /// Networks (`"10.0.0.0/8"`, `"2001:db8::/32"`) and single addresses.
        networks: Vec<At<Network>> = Vec::new();
        /// Files with more of them, relative to this configuration: one on each line; what follows
        /// `#` or `;` is a comment. Read when the configuration is loaded and by every reload; with
        /// `reload.watch` also when they change.
        files: Vec<At<String>> = Vec::new();
    }

    /// Which clients are served, by their address, as far as `forwarding.trusted_proxies` vouch for
    /// it. Others get 403. See docs/address-lists.md.
    pub struct Addresses {
        /// Only these: names of lists (`[address_lists.NAME]`), networks and addresses. Default:
        /// all. A client on a Unix socket has no address, so it is none of them.
        allow: Vec<At<AddressSource>> = Vec::new();
        /// Not these, also when they are in `allow`.
        deny: Vec<At<AddressSource>> = Vec::new();
        /// Refuse nobody: count whom it would refuse (`ringway_shadow_refusals_total`), and name
        /// the reason in access logs (`shadow`).
        shadow: bool = false;
    }
}
