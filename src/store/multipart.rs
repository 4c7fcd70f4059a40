//! Multipart uploads that began and never ended.
//!
//! In: a run on S3. Out: the uploads below it, and their end. A process that is killed while it writes a large object
//! leaves its parts behind, which are in no listing and cost as much as others. The object-store library can end an
//! upload but not list them, so that one request is made and signed here. Runs elsewhere have none: a local disk has
//! half-written files instead, Google Cloud Storage and Azure remove such parts by themselves after a week.

use std::time::{Duration, SystemTime};

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use serde::Deserialize;
use url::Url;

use super::{Store, credentials, fault};
use crate::{Error, Result};

/// An upload under way.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// The object's key, relative to the run.
    pub(super) key: String,
    /// When it began, by the store's clock.
    pub(super) initiated: SystemTime,
    path: String,
    id: String,
}

/// The answer to the request, as far as it is of use.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    initiated: String,
}

/// The uploads below the run.
///
/// # Errors
/// A store error when they cannot be listed.
pub(super) async fn pending(store: &Store) -> Result<Vec<Pending>> {
    let Some(s3) = s3(store)? else { return Ok(Vec::new()) };
    let failed = |e: &dyn std::fmt::Display| {
        Error::store(
            store,
            "listing multipart uploads failed; may these credentials list them (s3:ListBucketMultipartUploads)?",
        )
        .because(fault::scrub(&e.to_string()))
    };
    // The URL signed for reading nothing tells the bucket's address and region as the library works them out.
    let signed = s3.signed_url(http::Method::GET, &Path::default(), Duration::from_secs(60)).await;
    let signed = signed.map_err(|e| fault::object(store.url(), "listing multipart uploads", &e))?;
    let scope = signed.query_pairs().find(|(name, _)| name == "X-Amz-Credential").map(|(_, value)| value.into_owned());
    let region = scope.as_deref().and_then(|scope| scope.rsplit('/').nth(2)).unwrap_or("us-east-1").to_string();
    let mut options = ClientOptions::new().with_timeout(Duration::from_secs(60));
    if signed.scheme() == "http" {
        options = options.with_allow_http(true);
    }
    let client = ReqwestConnector::default().connect(&options).map_err(|e| failed(&e))?;
    let prefix = store.path("")?.to_string();
    let (mut found, mut markers) = (Vec::new(), None);
    loop {
        let url = request_url(&signed, &prefix, markers.as_ref());
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(|e: http::uri::InvalidUri| failed(&e))?;
        let credential = s3.credentials().get_credential().await.map_err(|e| failed(&e))?;
        AwsAuthorizer::new(&credential, "s3", &region).authorize(&mut request, None);
        let answer = client.execute(request).await.map_err(|e| failed(&e))?;
        let (status, body) = (answer.status(), answer.into_body().bytes().await.map_err(|e| failed(&e))?);
        let text = String::from_utf8_lossy(&body);
        if !status.is_success() {
            return Err(failed(&format!("{status}: {text}")));
        }
        let listing: Listing = quick_xml::de::from_str(&text).map_err(|e| failed(&e))?;
        for upload in listing.uploads {
            let key = upload.key.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('/')).map(str::to_string);
            // A neighbour whose name begins with this run's.
            let Some(key) = key.or_else(|| prefix.is_empty().then(|| upload.key.clone())) else { continue };
            let nanos = string_to_timestamp_nanos(&upload.initiated).map_err(|e| failed(&e))?;
            let initiated = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.max(0) as u64);
            found.push(Pending { key, initiated, path: upload.key, id: upload.upload_id });
        }
        markers = match (listing.is_truncated, listing.next_key_marker, listing.next_upload_id_marker) {
            (true, Some(key), Some(id)) => Some((key, id)),
            _ => return Ok(found),
        };
    }
}

fn request_url(signed: &Url, prefix: &str, markers: Option<&(String, String)>) -> Url {
    let mut url = signed.clone();
    url.set_query(None);
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("uploads", "").append_pair("prefix", prefix);
        if let Some((key, id)) = markers {
            query.append_pair("key-marker", key).append_pair("upload-id-marker", id);
        }
    }
    // A space in a signed query is %20, never +.
    let query = url.query().map(|query| query.replace('+', "%20"));
    url.set_query(query.as_deref());
    url
}

/// Ends an upload; its parts are removed. One that is gone already is fine.
///
/// # Errors
/// A store error.
pub(super) async fn abort(store: &Store, pending: &Pending) -> Result<()> {
    let Some(s3) = s3(store)? else { return Ok(()) };
    let path =
        Path::parse(&pending.path).map_err(|e| Error::store(store.name_of(&pending.key), "is no key").because(e))?;
    match s3.abort_multipart(&path, &pending.id).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(fault::object(&store.name_of(&pending.key), "ending a multipart upload", &e)),
    }
}

/// The run's store as S3, where it is one.
fn s3(store: &Store) -> Result<Option<AmazonS3>> {
    if !["s3://", "s3a://"].iter().any(|scheme| store.url().starts_with(scheme)) {
        return Ok(None);
    }
    credentials::configure(AmazonS3Builder::from_env())?
        .with_url(store.url())
        .build()
        .map(Some)
        .map_err(|e| Error::config(store, "the store cannot be set up").because(fault::scrub(&e.to_string())))
}
