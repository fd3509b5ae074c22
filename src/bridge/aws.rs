//! Services of AWS: where they are, who we are there, how long anything may take, what an error says.
//!
//! Owns: `AwsPlace` and what is resolved of it, once, at the start; the road from the SDK to the HTTP client that the rest of the
//! server uses.
//! May depend on: `config`, the AWS crates, reqwest, tokio.
//! Invariants: the start waits for credentials at most `RESOLVE_MS`; an answer has at most `ANSWER_BYTES_MAX`;
//! no credential is in a text.

use std::{error::Error, fmt, time::Duration};

use aws_config::{
    BehaviorVersion, ConfigLoader, Region, SdkConfig,
    default_provider::credentials::DefaultCredentialsChain, provider_config::ProviderConfig,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::ProvideCredentials as _};
use aws_smithy_runtime_api::client::{
    http::{
        HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::{ConnectorError, SdkError},
};
use aws_smithy_types::{body::SdkBody, error::metadata::ProvideErrorMetadata};

use super::tls::is_of_tls;
use crate::{config::Secret, metrics::backend::Fault};

/// What the configuration says of a service.
#[derive(Clone, Debug)]
pub struct AwsPlace {
    pub keys: AwsKeys,
    pub region: String,
    /// Another one than AWS's own.
    pub endpoint_url: Option<String>,
    /// Id, secret, and the token of temporary ones.
    pub fixed: Option<(Secret, Secret, Option<Secret>)>,
    pub profile: Option<String>,
    /// For all tries of one call.
    pub timeout: Duration,
}

/// The keys that an operator would change.
#[derive(Clone, Copy, Debug)]
pub struct AwsKeys {
    pub region: &'static str,
    pub endpoint: &'static str,
    /// Names the credentials.
    pub access_key: &'static str,
    /// How they are given.
    pub credentials: &'static str,
}

impl AwsKeys {
    pub const DYNAMODB: Self = Self {
        region: "database.dynamodb.region",
        endpoint: "database.dynamodb.endpoint_url",
        access_key: "database.dynamodb.aws_access_key_id",
        credentials: "set database.dynamodb.aws_access_key_id and aws_secret_access_key \
                      (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or aws_profile_name, or give this host or \
                      pod a role",
    };
    pub const SQS: Self = Self {
        region: "queue.sqs.region",
        endpoint: "queue.sqs.endpoint_url",
        access_key: "queue.driver",
        credentials: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this host or \
                      pod a role that may use the webhook queue",
    };
    pub const LAMBDA: Self = Self {
        region: "webhooks[].lambda.region",
        endpoint: "webhooks.lambda.endpoint_url",
        access_key: "AWS_ACCESS_KEY_ID",
        credentials: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this host or \
                      pod a role that may invoke the webhook's function",
    };
}

/// Nobody says who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCredentials {
    pub key: &'static str,
    pub fault: String,
}

impl AwsPlace {
    /// Looks for credentials where AWS's own tools do, in their order; blocking, for the start. Those that expire are
    /// renewed later by whoever uses them.
    pub fn resolve(&self) -> Result<SdkConfig, NoCredentials> {
        // The caller may itself be inside a runtime.
        let resolved = std::thread::scope(|scope| {
            let resolving = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                runtime.block_on(self.resolve_soon())
            });
            resolving.join()
        });
        let resolved = resolved.unwrap_or_else(|_| Err("looking for them broke".to_owned()));
        resolved.map_err(|reason| self.missing(&reason))
    }

    pub fn missing(&self, reason: &str) -> NoCredentials {
        NoCredentials {
            key: self.keys.access_key,
            fault: format!(
                "there are no AWS credentials: {}. Looked for: {reason}",
                self.keys.credentials
            ),
        }
    }

    /// The same inside a runtime, or why there are none.
    pub async fn resolve_soon(&self) -> Result<SdkConfig, String> {
        let resolving = tokio::time::timeout(Duration::from_millis(RESOLVE_MS), async {
            let client = http_client().map_err(|error| chain(&error))?;
            let loader = self.loader(client.clone());
            if let Some((id, secret, token)) = &self.fixed {
                let token = token.as_ref().map(|token| token.expose().to_owned());
                let fixed =
                    Credentials::new(id.expose(), secret.expose(), token, None, "configuration");
                return Ok(loader.credentials_provider(fixed).load().await);
            }
            let provider = self.provider(client).await;
            let found = provider.provide_credentials().await;
            found.map_err(|error| chain(&error))?;
            Ok(loader.credentials_provider(provider).load().await)
        });
        let late = || format!("no answer within {RESOLVE_MS} ms");
        resolving.await.unwrap_or_else(|_| Err(late()))
    }

    fn loader(&self, client: SharedHttpClient) -> ConfigLoader {
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(self.timeout)
            .operation_attempt_timeout(self.timeout.div_f64(1.5))
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(TRIES_MAX)
            .with_initial_backoff(Duration::from_millis(50))
            .with_max_backoff(Duration::from_millis(500));
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(client)
            .region(Region::new(self.region.clone()))
            .timeout_config(timeouts)
            .retry_config(retries);
        if let Some(url) = &self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        loader
    }

    /// A host that is not on AWS has no metadata service: one try, which does not wait long.
    async fn provider(&self, client: SharedHttpClient) -> DefaultCredentialsChain {
        let region = Region::new(self.region.clone());
        let config = ProviderConfig::without_region()
            .with_http_client(client)
            .with_region(Some(region.clone()));
        let metadata = aws_config::imds::Client::builder()
            .configure(&config)
            .max_attempts(2)
            .connect_timeout(Duration::from_millis(500))
            .operation_timeout(Duration::from_millis(1_500))
            .build();
        let mut chain = DefaultCredentialsChain::builder()
            .configure(config)
            .imds_client(metadata)
            .region(region);
        if let Some(profile) = &self.profile {
            chain = chain.profile_name(profile);
        }
        chain.build().await
    }
}

/// What an operator can do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsFault {
    /// Nobody answers there, or not in time.
    Unreachable(String),
    Late,
    /// TLS did not come to be: its certificate is of nobody whom this system trusts.
    Untrusted(String),
    /// An answer that cannot be read, or a question that cannot be put.
    Strange(String),
    /// It does not know us, or not any more.
    Credentials(String),
    /// It knows us, and we may not.
    Denied(String),
    /// By the service's own name for it.
    Refused {
        code: String,
        words: String,
    },
}

impl AwsFault {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else the SDK has to say, there is no answer"
    )]
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => Self::Late,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::Late,
            SdkError::DispatchFailure(_) if is_of_tls(error) => Self::Untrusted(chain(error)),
            // What the SDK says itself of credentials comes this way too.
            SdkError::DispatchFailure(failure) if failure.is_other() => {
                Self::Credentials(chain(error))
            }
            SdkError::ServiceError(refused) => {
                let code = refused.err().code().unwrap_or_default();
                let words = bounded(refused.err().message().unwrap_or_default());
                match code {
                    "UnrecognizedClientException"
                    | "InvalidClientTokenId"
                    | "InvalidSignatureException"
                    | "SignatureDoesNotMatch"
                    | "IncompleteSignature"
                    | "MissingAuthenticationToken"
                    | "MissingAuthenticationTokenException"
                    | "ExpiredToken"
                    | "ExpiredTokenException" => Self::Credentials(format!("{code}: {words}")),
                    "AccessDenied" | "AccessDeniedException" => Self::Denied(words),
                    "" => {
                        let status = refused.raw().status();
                        match status.as_u16() {
                            401 | 403 => Self::Credentials(format!("{status} {words}")),
                            _ => Self::Refused {
                                code: status.to_string(),
                                words,
                            },
                        }
                    }
                    _ => Self::Refused {
                        code: bounded(code),
                        words,
                    },
                }
            }
            SdkError::ResponseError(_) | SdkError::ConstructionFailure(_) => {
                Self::Strange(chain(error))
            }
            other => Self::Unreachable(chain(other)),
        }
    }

    /// As it is counted.
    pub const fn kind(&self) -> Fault {
        match self {
            Self::Unreachable(_) => Fault::Io,
            Self::Late => Fault::Timeout,
            Self::Untrusted(_) | Self::Credentials(_) | Self::Denied(_) => Fault::Auth,
            Self::Strange(_) | Self::Refused { .. } => Fault::Protocol,
        }
    }

    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }
}

/// An error with what it comes from: the outermost alone says nothing.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !words.contains(&inner) {
            words += ": ";
            words += &inner;
        }
        source = error.source();
    }
    bounded(&words)
}

fn bounded(words: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(WORDS_MAX).map(plain).collect()
}

/// The client of webhooks and commands, so that no second one with its own TLS is in the program.
#[derive(Clone)]
struct Road(reqwest::Client);

impl fmt::Debug for Road {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Road")
    }
}

fn http_client() -> Result<SharedHttpClient, reqwest::Error> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(20))
        .build()?;
    let connector = SharedHttpConnector::new(Road(client));
    Ok(http_client_fn(move |_, _| connector.clone()))
}

impl HttpConnector for Road {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            // Every body of ours lies in memory.
            let request = request.map(|body: SdkBody| {
                let bytes = body.bytes().unwrap_or_default();
                reqwest::Body::from(bytes.to_vec())
            });
            let request = reqwest::Request::try_from(request)
                .map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.execute(request).await.map_err(no_answer)?;
            answer(response).await
        })
    }
}

async fn answer(mut response: reqwest::Response) -> Result<HttpResponse, ConnectorError> {
    let status = response.status().as_u16().try_into();
    let status = status.map_err(|_| ConnectorError::io("no status of HTTP".into()))?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ConnectorError::io("the answer is too large".into()));
        }
        body.extend_from_slice(&chunk);
    }
    let mut answer = HttpResponse::new(status, SdkBody::from(body));
    for (name, value) in response.headers() {
        if let Ok(value) = value.to_str() {
            let appended = answer
                .headers_mut()
                .try_append(name.as_str().to_owned(), value.to_owned());
            appended.map_err(|error| ConnectorError::io(error.into()))?;
        }
    }
    Ok(answer)
}

fn no_answer(error: reqwest::Error) -> ConnectorError {
    match error.is_timeout() {
        true => ConnectorError::timeout(error.into()),
        false => ConnectorError::io(error.into()),
    }
}

const RESOLVE_MS: u64 = 2_500;
/// Of one call, the first included; the SDK's own budget ends them sooner where nothing answers.
const TRIES_MAX: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest is a batch of items: 16 MiB.
const ANSWER_BYTES_MAX: usize = 17 << 20;
const WORDS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use std::io;

    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    type Failure = SdkError<ErrorMetadata, HttpResponse>;

    fn refused(status: u16, code: &str) -> Failure {
        let mut error = ErrorMetadata::builder().message("its words");
        if !code.is_empty() {
            error = error.code(code);
        }
        let status = status.try_into().expect("a status");
        let raw = HttpResponse::new(status, SdkBody::empty());
        SdkError::service_error(error.build(), raw)
    }

    #[test]
    fn what_a_service_says_is_counted_as_what_it_is() {
        for (status, code, counted) in [
            (400, "UnrecognizedClientException", Fault::Auth),
            (403, "InvalidClientTokenId", Fault::Auth),
            (403, "InvalidSignatureException", Fault::Auth),
            (403, "SignatureDoesNotMatch", Fault::Auth),
            (400, "IncompleteSignature", Fault::Auth),
            (400, "MissingAuthenticationTokenException", Fault::Auth),
            (400, "ExpiredTokenException", Fault::Auth),
            (400, "AccessDeniedException", Fault::Auth),
            (403, "AccessDenied", Fault::Auth),
            // What is no answer of the service, but of a proxy before it.
            (401, "", Fault::Auth),
            (403, "", Fault::Auth),
            (502, "", Fault::Protocol),
            (400, "ResourceNotFoundException", Fault::Protocol),
            (
                400,
                "AWS.SimpleQueueService.NonExistentQueue",
                Fault::Protocol,
            ),
            (
                400,
                "ProvisionedThroughputExceededException",
                Fault::Protocol,
            ),
            (400, "ThrottlingException", Fault::Protocol),
            (500, "InternalServerError", Fault::Protocol),
        ] {
            let fault = AwsFault::of(&refused(status, code));
            assert_eq!(fault.kind(), counted, "{status} {code}: {fault:?}");
        }
    }

    #[test]
    fn what_no_service_says_is_counted_as_what_it_is() {
        let io = || io::Error::from(io::ErrorKind::ConnectionReset);
        let unknown = rustls::CertificateError::UnknownIssuer;
        let untrusted = rustls::Error::InvalidCertificate(unknown);
        let untrusted = io::Error::new(io::ErrorKind::InvalidData, untrusted);
        let strange = HttpResponse::new(200.try_into().expect("a status"), SdkBody::empty());
        for (error, counted) in [
            (Failure::timeout_error("no answer"), Fault::Timeout),
            (
                Failure::dispatch_failure(ConnectorError::timeout("no answer".into())),
                Fault::Timeout,
            ),
            (
                Failure::dispatch_failure(ConnectorError::io(io().into())),
                Fault::Io,
            ),
            (
                Failure::dispatch_failure(ConnectorError::io(untrusted.into())),
                Fault::Auth,
            ),
            (
                Failure::dispatch_failure(ConnectorError::other("no credentials".into(), None)),
                Fault::Auth,
            ),
            (
                Failure::response_error("not understood", strange),
                Fault::Protocol,
            ),
            (
                Failure::construction_failure("it cannot be put"),
                Fault::Protocol,
            ),
        ] {
            let fault = AwsFault::of(&error);
            assert_eq!(fault.kind(), counted, "{error:?}: {fault:?}");
        }
    }
}
