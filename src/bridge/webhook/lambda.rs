//! A function of AWS Lambda as a webhook's target: its address, and a request that it knows to be ours.
//!
//! Owns: `Functions`: where they are; `Credential`, the one for all of them.
//! May depend on: `bridge::aws`, `webhook::client`, aws-sigv4, hyper's headers, tokio.
//! Invariants: a function is called without waiting for what it does; credentials are kept until they are about to
//! expire, and asked for by one request at a time, on which the others wait; none waits without an end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::{Credentials, provider::ProvideCredentials as _};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use hyper::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use reqwest::Url;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{attempt::AttemptError, client::ExchangeError};
use crate::bridge::aws::{AwsKeys, AwsPlace};

/// All functions that are targets.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// Another one than AWS's own.
    endpoint: Option<Url>,
    credential: Credential,
}

/// What requests are signed with, once it was found.
#[derive(Debug, Default)]
struct Credential(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    found: Option<Credentials>,
    /// When there was none, and why.
    missing: Option<(Instant, String)>,
}

impl Credential {
    /// The one that is kept, if it holds; else what `ask` finds, or why that finds none.
    async fn get(
        &self,
        ask: impl Future<Output = Result<Credentials, String>>,
    ) -> Result<Credentials, String> {
        let began = Instant::now();
        let mut asked = self.0.lock().await;
        if let Some(found) = asked.found.as_ref().filter(|it| holds(it, now())) {
            return Ok(found.clone());
        }
        // Somebody else asked meanwhile, and would have found it.
        if let Some((at, reason)) = &asked.missing
            && *at > began
        {
            return Err(reason.clone());
        }
        let late = || format!("no answer within {} s", FOUND_WITHIN.as_secs());
        let found = timeout(FOUND_WITHIN, ask).await;
        match found.unwrap_or_else(|_| Err(late())) {
            Ok(found) => {
                asked.found = Some(found.clone());
                Ok(found)
            }
            Err(reason) => {
                asked.missing = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }
}

impl Functions {
    pub(super) fn at(endpoint: Option<&str>) -> Self {
        Self {
            endpoint: endpoint.and_then(|url| Url::parse(url).ok()),
            credential: Credential::default(),
        }
    }

    /// Where a function is invoked; its name may be an ARN, and carry an alias.
    pub(super) fn url(&self, function_name: &str, region: &str) -> Option<Url> {
        let mut url = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                // China's regions have a domain of their own.
                let domain = match region.starts_with("cn-") {
                    true => "amazonaws.com.cn",
                    false => "amazonaws.com",
                };
                Url::parse(&format!("https://lambda.{region}.{domain}")).ok()?
            }
        };
        let mut path = url.path_segments_mut().ok()?;
        path.pop_if_empty();
        path.extend([API_VERSION, "functions", function_name, "invocations"]);
        drop(path);
        Some(url)
    }

    async fn credentials(&self, region: &str) -> Result<Credentials, ExchangeError> {
        let place = AwsPlace {
            keys: AwsKeys::LAMBDA,
            region: region.to_owned(),
            endpoint_url: None,
            fixed: None,
            profile: None,
            timeout: CREDENTIALS_TIMEOUT,
        };
        let ask = async {
            let resolved = place.resolve_soon().await?;
            let provider = resolved.credentials_provider();
            let provider = provider.ok_or_else(|| "nothing was found".to_owned())?;
            let found = provider.provide_credentials().await;
            found.map_err(|error| error.to_string())
        };
        let found = self.credential.get(ask).await;
        found.map_err(|reason| ExchangeError::Broken(place.missing(&reason).fault))
    }
}

/// What is needed to invoke one.
#[derive(Debug)]
pub(super) struct Function {
    functions: Arc<Functions>,
    region: String,
}

impl Function {
    pub(super) fn new(functions: &Arc<Functions>, region: &str) -> Self {
        Self {
            functions: Arc::clone(functions),
            region: region.to_owned(),
        }
    }

    /// The headers with which it is invoked at its address with that body.
    pub(super) async fn headers(&self, url: &Url, body: &[u8]) -> Result<HeaderMap, ExchangeError> {
        let credentials = self.functions.credentials(&self.region).await?;
        let fixed = [
            ("content-type", "application/json"),
            ("x-amz-invocation-type", "Event"),
        ];
        signed(&credentials, url, &self.region, &fixed, body)
            .ok_or_else(|| ExchangeError::Broken("the request cannot be signed".to_owned()))
    }
}

/// The call was taken, or why not. Another success than 202 is that of a function that was waited for, and may itself have
/// failed: it is none of ours.
pub(super) fn verdict(status: StatusCode, body: &[u8]) -> Result<(), AttemptError> {
    if status == StatusCode::ACCEPTED {
        return Ok(());
    }
    let words = String::from_utf8_lossy(body);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let words: String = words.chars().map(plain).collect();
    Err(AttemptError::Function(format!("{status} {words}")))
}

/// Not to expire while the request is on its way.
fn holds(credentials: &Credentials, now: SystemTime) -> bool {
    let expiry = credentials.expiry();
    expiry.is_none_or(|expiry| expiry > now + RENEWED_BEFORE)
}

/// `None` where the request is none that can be signed.
fn signed(
    credentials: &Credentials,
    url: &Url,
    region: &str,
    fixed: &[(&'static str, &'static str)],
    body: &[u8],
) -> Option<HeaderMap> {
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("lambda")
        .time(now())
        .settings(SigningSettings::default())
        .build()
        .ok()?;
    let request = SignableRequest::new(
        "POST",
        url.as_str(),
        fixed.iter().copied(),
        SignableBody::Bytes(body),
    );
    let signed = sign(request.ok()?, &params.into()).ok()?;
    let (instructions, _) = signed.into_parts();
    let mut headers = HeaderMap::new();
    for (name, value) in fixed {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    for (name, value) in instructions.headers() {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name).ok()?, value);
    }
    Some(headers)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a signature holds the wall clock's time, and credentials expire by it"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

const API_VERSION: &str = "2015-03-31";
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(2);
/// Twice what looking for them takes at most: those that were found are asked for by the request.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
const RENEWED_BEFORE: Duration = Duration::from_secs(300);
/// Of an answer, to be told.
pub(super) const WORDS_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_function_has_its_regions_address_whatever_its_name() {
        let functions = Functions::default();
        for (name, region, wanted) in [
            (
                "f",
                "eu-central-1",
                "https://lambda.eu-central-1.amazonaws.com/2015-03-31/functions/f/invocations",
            ),
            (
                "f:live",
                "cn-north-1",
                "https://lambda.cn-north-1.amazonaws.com.cn/2015-03-31/functions/f:live/invocations",
            ),
            (
                "a/../b?c",
                "us-east-1",
                "https://lambda.us-east-1.amazonaws.com/2015-03-31/functions/a%2F..%2Fb%3Fc/invocations",
            ),
        ] {
            let url = functions.url(name, region).expect("a URL");
            assert_eq!(url.as_str(), wanted);
        }
        assert!(functions.url("f", "not a region/").is_none());
        let local = Functions::at(Some("http://127.0.0.1:4566/"));
        let url = local.url("f", "us-east-1").expect("a URL");
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:4566/2015-03-31/functions/f/invocations"
        );
    }

    #[test]
    fn credentials_are_renewed_before_they_expire() {
        let at = |expiry| Credentials::new("a", "s", None, expiry, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(holds(&at(None), now));
        assert!(holds(&at(Some(now + Duration::from_secs(301))), now));
        assert!(!holds(&at(Some(now + Duration::from_secs(300))), now));
    }

    #[tokio::test]
    async fn who_waits_while_another_one_asks_for_credentials_hears_what_that_one_hears() {
        let credential = Credential::default();
        let count = AtomicU32::new(0);
        let ask = |found: Result<Credentials, String>| {
            let count = &count;
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                found
            }
        };
        let none = || credential.get(ask(Err("nobody is there".to_owned())));
        let (first, second, third) = tokio::join!(none(), none(), none());
        for found in [first, second, third] {
            assert_eq!(found.expect_err("none is there"), "nobody is there");
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        // Who comes later asks anew; what was found is kept.
        let some = || credential.get(ask(Ok(Credentials::new("a", "s", None, None, "test"))));
        let (first, second) = tokio::join!(some(), some());
        assert!(first.is_ok() && second.is_ok());
        assert!(none().await.is_ok());
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn only_a_call_that_was_taken_is_a_success() {
        assert!(verdict(StatusCode::ACCEPTED, b"").is_ok());
        for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
            let refused = verdict(status, b"{\"Message\":\n\"no\"}").expect_err("no call");
            let wanted = format!("the function is not invoked: {status} {{\"Message\": \"no\"}}");
            assert_eq!(refused.to_string(), wanted);
        }
    }
}
