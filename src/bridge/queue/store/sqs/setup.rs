//! What the configuration says of SQS.
//!
//! Owns: `SqsSetup`: the queues' names, bounds and groups; the client.
//! May depend on: `bridge::aws`, `config`, the crate `aws-sdk-sqs`.
//! Invariants: as `bridge::aws` has them; retries are ours alone, since those of the SDK have one budget for all
//! clients of a process.

use std::time::Duration;

use aws_sdk_sqs::{
    Client, Config as ClientConfig,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
};

use crate::{
    bridge::aws::{AwsKeys, AwsPlace, NoCredentials},
    config::Config,
};

/// The queue as its configuration has it.
#[derive(Clone, Debug)]
pub struct SqsSetup {
    pub(super) place: AwsPlace,
    /// A URL is this and the queue's name; `None`: AWS tells it by the name.
    pub(super) url_prefix: Option<String>,
    pub(super) visibility: Duration,
    pub(super) wait_s: i32,
    pub(super) messages_max: usize,
    pub(super) pollers: usize,
    /// `None` = a standard queue.
    pub(super) groups: Option<Groups>,
}

/// Which messages of a FIFO queue have one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    /// All of them.
    One(String),
    /// Those of one target and channel.
    PerChannel,
}

impl SqsSetup {
    pub fn of(config: &Config) -> Self {
        let sqs = &config.queue.sqs;
        let group = sqs.message_group_id.as_deref().unwrap_or("default");
        let groups = match group {
            "per_channel" => Groups::PerChannel,
            group => Groups::One(super::text::group(group)),
        };
        Self {
            place: AwsPlace {
                keys: AwsKeys::SQS,
                region: sqs.region.clone(),
                endpoint_url: sqs.endpoint_url.clone(),
                fixed: None,
                profile: None,
                timeout: TIMEOUT,
            },
            url_prefix: sqs.queue_url_prefix.clone(),
            // What is held is lent again at half of it, which must be a second at least.
            visibility: Duration::from_secs(sqs.visibility_timeout_s.max(2).into()),
            wait_s: i32::try_from(sqs.wait_time_s).unwrap_or(20),
            messages_max: sqs.max_messages.clamp(1, 10) as usize,
            pollers: sqs.concurrency.clamp(1, POLLERS_MAX) as usize,
            groups: sqs.fifo.then_some(groups),
        }
    }

    /// Deliveries under way at the same time.
    pub fn in_flight_max(&self) -> usize {
        (self.pollers * self.messages_max).clamp(IN_FLIGHT_MIN, IN_FLIGHT_MAX)
    }

    /// Looks for credentials, which may take two and a half seconds where there are none.
    pub(super) fn client(&self) -> Result<Client, NoCredentials> {
        let resolved = self.place.resolve()?;
        let timeouts = TimeoutConfig::builder().operation_timeout(TIMEOUT).build();
        let config = ClientConfig::from(&resolved)
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        Ok(Client::from_conf(config.build()))
    }

    /// A long poll is answered later than anything else.
    pub(super) fn poll_config(&self) -> aws_sdk_sqs::config::Builder {
        let wait = Duration::from_secs(u64::try_from(self.wait_s).unwrap_or(0));
        let timeouts = TimeoutConfig::builder().operation_timeout(wait + TIMEOUT);
        ClientConfig::builder().timeout_config(timeouts.build())
    }

    pub(super) fn queue(&self) -> &'static str {
        match self.groups {
            None => "webhooks",
            Some(_) => "webhooks.fifo",
        }
    }

    /// Letters have no order.
    pub(super) const LETTERS: &'static str = "webhooks-dead";

    /// The service as an operator knows it.
    pub(super) fn at(&self) -> String {
        let AwsPlace {
            region,
            endpoint_url,
            ..
        } = &self.place;
        match endpoint_url {
            Some(url) => format!("SQS at {url}"),
            None => format!("SQS in {region}"),
        }
    }
}

/// A service that is slower than this is as good as gone.
const TIMEOUT: Duration = Duration::from_secs(5);
const POLLERS_MAX: u32 = 64;
const IN_FLIGHT_MIN: usize = 20;
const IN_FLIGHT_MAX: usize = 256;
