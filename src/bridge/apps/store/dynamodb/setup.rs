//! What the configuration says of DynamoDB.
//!
//! Owns: `DynamodbSetup`, and the names that a table's layout has.
//! May depend on: `bridge::aws`, `config`, the crate `aws-sdk-dynamodb`.
//! Invariants: as `bridge::aws` has them.

use std::time::Duration;

use aws_sdk_dynamodb::Client;

use super::super::StoreSetupError;
use crate::{
    bridge::aws::{AwsKeys, AwsPlace},
    config::{Config, sections::DynamodbLayout},
};

#[derive(Clone, Debug)]
pub(super) struct DynamodbSetup {
    pub(super) place: AwsPlace,
    pub(super) table: String,
    pub(super) names: Names,
}

/// What a layout calls the attributes by which items are found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub(super) layout: DynamodbLayout,
    pub(super) id: &'static str,
    pub(super) key: &'static str,
    /// The one by `key`.
    pub(super) index: &'static str,
}

impl Names {
    const fn of(layout: DynamodbLayout) -> Self {
        match layout {
            DynamodbLayout::Sockudo => Self {
                layout,
                id: "id",
                key: "key",
                index: "KeyIndex",
            },
            DynamodbLayout::Soketi => Self {
                layout,
                id: "AppId",
                key: "AppKey",
                index: "AppKeyIndex",
            },
        }
    }
}

impl DynamodbSetup {
    pub(super) fn of(config: &Config) -> Self {
        let dynamodb = &config.database.dynamodb;
        let fixed = dynamodb
            .aws_access_key_id
            .clone()
            .zip(dynamodb.aws_secret_access_key.clone())
            .map(|(id, secret)| (id, secret, dynamodb.aws_session_token.clone()));
        Self {
            place: AwsPlace {
                keys: AwsKeys::DYNAMODB,
                region: dynamodb.region.clone(),
                endpoint_url: dynamodb.endpoint_url.clone(),
                fixed,
                profile: dynamodb.aws_profile_name.clone(),
                timeout: Duration::from_millis(dynamodb.timeout_ms),
            },
            table: dynamodb.table_name.clone(),
            names: Names::of(dynamodb.layout),
        }
    }

    pub(super) fn client(&self) -> Result<Client, StoreSetupError> {
        let resolved = self.place.resolve();
        let resolved = resolved.map_err(|missing| StoreSetupError {
            key: missing.key,
            fault: missing.fault,
            is_forbidden: false,
        })?;
        Ok(Client::new(&resolved))
    }

    /// The service as an operator knows it.
    pub(super) fn at(&self) -> String {
        let AwsPlace {
            region,
            endpoint_url,
            ..
        } = &self.place;
        match endpoint_url {
            Some(url) => format!("DynamoDB at {url}"),
            None => format!("DynamoDB in {region}"),
        }
    }
}
