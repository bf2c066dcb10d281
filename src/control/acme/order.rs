//! One certificate from one authority: account, order, challenge, certificate (RFC 8555 §7).

use std::{sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, ExternalAccountKey,
    Identifier, KeyAuthorization, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer, sign::CertifiedKey,
};

use super::{
    http::{Asked, Http, Unreachable},
    store::{self, Kept},
};
use crate::config::{
    snapshot::{AcmeIssuer, AcmeName, Issued, Token},
    values::AcmeChallenge,
};

/// How long the authority may take to look, and to issue.
const POLL_FOR: Duration = Duration::from_secs(90);
const POLL_FIRST: Duration = Duration::from_millis(250);
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why no certificate was got.
#[derive(Debug)]
pub struct Failed {
    pub why: String,
    /// The authority was not reached, so that it counts nothing.
    pub is_unreachable: bool,
    /// How long it asked to wait.
    pub asked: Option<Duration>,
}

/// What ends an order.
enum Ended {
    Error(Error),
    Other(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Error(error)
    }
}

impl Ended {
    fn failed(self, asked: &Asked) -> Failed {
        let (why, is_unreachable) = match self {
            Ended::Other(why) => (why, false),
            Ended::Error(Error::Other(other)) => {
                (other.to_string(), other.downcast_ref::<Unreachable>().is_some())
            }
            Ended::Error(Error::Api(problem)) => {
                let told = problem.to_string();
                (format!("the authority says {}", told.trim_start_matches("API error: ")), false)
            }
            Ended::Error(error) => (error.to_string(), false),
        };
        Failed { why, is_unreachable, asked: asked.get() }
    }
}

/// Gets a certificate for `name` and answers key and chain in one text. `replaces`: the one before,
/// if the authority shall know (RFC 9773 §5).
pub async fn obtain(name: &AcmeName, replaces: Option<&Issued>) -> Result<String, Failed> {
    let asked = Asked::default();
    let issuer = &*name.issuer;
    let account = account(issuer, &asked).await.map_err(|ended| ended.failed(&asked))?;
    match ordered(&account, name, replaces).await {
        Err(Ended::Error(Error::Api(problem))) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
            tracing::warn!(authority = issuer.directory, "it does not know the account: a new one");
            let forgotten = store::forget_account(&issuer.folder);
            forgotten.map_err(|e| Ended::Other(e.to_string()).failed(&asked))?;
            let account = self::account(issuer, &asked).await;
            let account = account.map_err(|ended| ended.failed(&asked))?;
            ordered(&account, name, replaces).await
        }
        outcome => outcome,
    }
    .map_err(|ended| ended.failed(&asked))
}

/// The account that is kept, or a new one.
async fn account(issuer: &AcmeIssuer, asked: &Asked) -> Result<Account, Ended> {
    let builder = || Account::builder_with_http(Box::new(Http::new(&issuer.client, asked.clone())));
    let damaged = |e: std::io::Error| Ended::Other(format!("{}: {e}", issuer.folder.display()));
    let contact = issuer.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    if let Some(Kept { email, credentials }) = store::account(&issuer.folder).map_err(damaged)? {
        let json = serde_json::to_value(&credentials).map_err(Error::Json)?;
        let account = builder().from_credentials(credentials).await?;
        if email != issuer.email {
            account.update_contacts(&contact).await?;
            let credentials = serde_json::from_value(json).map_err(Error::Json)?;
            let kept = Kept { email: issuer.email.clone(), credentials };
            store::keep_account(&issuer.folder, &kept).map_err(damaged)?;
        }
        return Ok(account);
    }
    // The configuration says that the terms are agreed to, or there is no name.
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = issuer.external_account.as_ref();
    let external = external.map(|own| ExternalAccountKey::new(own.key_id.clone(), &own.key.0));
    let (account, credentials) =
        builder().create(&new, issuer.directory.clone(), external.as_ref()).await?;
    let kept = Kept { email: issuer.email.clone(), credentials };
    store::keep_account(&issuer.folder, &kept).map_err(damaged)?;
    tracing::info!(authority = issuer.directory, account = account.id(), "account made");
    Ok(account)
}

async fn ordered(
    account: &Account,
    name: &AcmeName,
    replaces: Option<&Issued>,
) -> Result<String, Ended> {
    let identifiers = [Identifier::Dns(name.name.clone())];
    let mut order = NewOrder::new(&identifiers);
    let before = replaces.and_then(identifier);
    if let Some(before) = before {
        order = order.replaces(before);
    }
    let mut order = match account.new_order(&order).await {
        // It has no use for that.
        Err(Error::Unsupported(_)) => account.new_order(&NewOrder::new(&identifiers)).await?,
        order => order?,
    };
    prove(&mut order, name).await?;
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&policy()).await?;
    Ok(format!("{key}{chain}"))
}

/// How an authority knows a certificate.
pub fn identifier(issued: &Issued) -> Option<CertificateIdentifier<'static>> {
    let first = issued.key.cert.first()?;
    CertificateIdentifier::try_from(first).ok().map(CertificateIdentifier::into_owned)
}

fn policy() -> RetryPolicy {
    RetryPolicy::new().initial_delay(POLL_FIRST).backoff(1.5).timeout(POLL_FOR)
}

/// Proves that the name is ours.
async fn prove(order: &mut Order, name: &AcmeName) -> Result<(), Ended> {
    let challenged = challenge(order, name).await?;
    if challenged.is_none() {
        return Ok(());
    }
    let polled = order.poll_ready(&policy()).await;
    if matches!(polled, Ok(OrderStatus::Ready | OrderStatus::Valid)) {
        return Ok(());
    }
    // What exactly was wrong is in the challenge.
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { break };
        if let Some(problem) = state.challenges.iter().find_map(|c| c.error.clone()) {
            return Err(Error::Api(problem).into());
        }
    }
    polled?;
    Err(Ended::Other("the authority refuses the order and does not say why".to_owned()))
}

/// Lays the answer to the authority's question out, and tells it to look. `None`: it does not ask.
async fn challenge<'n>(
    order: &mut Order,
    name: &'n AcmeName,
) -> Result<Option<Pending<'n>>, Ended> {
    let mut pending = None;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            status => return Err(Ended::Other(format!("the authorization is {status:?}"))),
        }
        let kind = match name.challenge {
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            AcmeChallenge::Http01 => ChallengeType::Http01,
        };
        let Some(mut challenge) = authorization.challenge(kind) else {
            let word = name.challenge.word();
            return Err(Ended::Other(format!("the authority does not offer {word} for this name")));
        };
        let answer = challenge.key_authorization();
        pending = Some(Pending::begin(name, &challenge.token, &answer)?);
        challenge.set_ready().await?;
    }
    Ok(pending)
}

/// A challenge that every worker answers, until this is dropped.
struct Pending<'n>(&'n AcmeName);

impl<'n> Pending<'n> {
    fn begin(
        name: &'n AcmeName,
        token: &str,
        answer: &KeyAuthorization,
    ) -> Result<Pending<'n>, Ended> {
        match name.challenge {
            AcmeChallenge::Http01 => {
                let (token, answer) = (token.to_owned(), answer.as_str().to_owned());
                name.cell.token.store(Some(Arc::new(Token { token, answer })));
            }
            AcmeChallenge::TlsAlpn01 => {
                let key = proof(&name.name, answer.digest().as_ref());
                let key = key.map_err(|e| Ended::Other(format!("cannot make a proof: {e}")))?;
                name.cell.handshake.store(Some(Arc::new(key)));
            }
        }
        Ok(Pending(name))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.cell.token.store(None);
        self.0.cell.handshake.store(None);
    }
}

/// The certificate that proves a name in a handshake (RFC 8737 §3).
fn proof(name: &str, digest: &[u8]) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::try_from(key.serialize_der())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&der)?))
}

/// When the authority would have a certificate renewed (RFC 9773), and when to ask again.
pub async fn suggestion(
    issuer: &AcmeIssuer,
    issued: &Issued,
) -> Option<(std::ops::Range<std::time::SystemTime>, Duration)> {
    let account = account(issuer, &Asked::default()).await.ok()?;
    let (info, again) = account.renewal_info(&identifier(issued)?).await.ok()?;
    let time = |at: i64| {
        std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap_or_default())
    };
    let window = info.suggested_window;
    Some((time(window.start.unix_timestamp())..time(window.end.unix_timestamp()), again))
}
