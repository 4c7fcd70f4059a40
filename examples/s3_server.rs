//! An S3 server of one process, for the tests and for trying salmon on `s3://` without a cloud.
//!
//! ```sh
//! export AWS_ACCESS_KEY_ID=try AWS_SECRET_ACCESS_KEY=try-secret AWS_REGION=us-east-1
//! mkdir -p /tmp/s3/bucket                                  # a bucket is a folder
//! cargo run --example s3_server -- /tmp/s3 --port 9000     # prints http://127.0.0.1:9000
//! AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_ALLOW_HTTP=true salmon run --run s3://bucket/run
//! ```
//! In: a folder, the one accepted key pair in the environment. Out: its address as one line, then objects over HTTP
//! until the process is ended. The protocol and the files are `s3s` and `s3s-fs`; what stands here makes conditional
//! puts atomic (one winner of many at once), as S3's are, and answers as S3 does to a wrong region, a read-only or
//! missing bucket and an overload. Keys may have about 150 bytes, a limit of `s3s-fs`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use futures::TryStreamExt;
use hyper_util::rt::TokioIo;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;

/// Serves the folders below FOLDER as buckets; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are the accepted keys.
#[derive(Parser)]
struct Options {
    /// Where buckets lie.
    folder: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Refuse requests that are signed for another region.
    #[arg(long)]
    region: Option<String>,
    /// Refuse to write into this bucket.
    #[arg(long)]
    read_only: Option<String>,
    /// Answer this share of requests, in percent, with 503 SlowDown.
    #[arg(long, default_value_t = 0)]
    slow_down: u64,
    /// Append a line per request: method, path and the headers that ask for encryption.
    #[arg(long)]
    log: Option<PathBuf>,
    /// End when stdin is closed, as it is when the process that started this one dies.
    #[arg(long)]
    with_stdin: bool,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let key = std::env::var("AWS_ACCESS_KEY_ID").map_err(|_| "set AWS_ACCESS_KEY_ID")?;
    let secret = std::env::var("AWS_SECRET_ACCESS_KEY").map_err(|_| "set AWS_SECRET_ACCESS_KEY")?;
    let files = FileSystem::new(&options.folder).map_err(|e| format!("{}: {e:?}", options.folder.display()))?;
    let locks = (0..64).map(|_| tokio::sync::Mutex::new(())).collect();
    let mut service = S3ServiceBuilder::new(Buckets { files, folder: options.folder.clone(), locks });
    service.set_auth(OnePair { key, secret: secret.into() });
    let open = |path| std::fs::OpenOptions::new().create(true).append(true).open(path);
    let log = options.log.as_ref().map(open).transpose()?.map(Mutex::new);
    if options.with_stdin {
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", options.port)).await?;
    service.set_access(Gate { log, seen: AtomicU64::new(0), options });
    let service = service.build();
    println!("http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        socket.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            // A client that dies in the middle of a request is no failure of the server.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// The accepted key pair.
struct OnePair {
    key: String,
    secret: SecretKey,
}

#[async_trait]
impl S3Auth for OnePair {
    async fn get_secret_key(&self, key: &str) -> S3Result<SecretKey> {
        if key == self.key {
            return Ok(self.secret.clone());
        }
        Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
    }
}

/// Who may do what, before anything is done.
struct Gate {
    options: Options,
    log: Option<Mutex<std::fs::File>>,
    seen: AtomicU64,
}

#[async_trait]
impl S3Access for Gate {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(log) = &self.log {
            let encryption = ["x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"];
            let asked: String = encryption
                .iter()
                .filter_map(|name| Some(format!(" {}={}", name.trim_start_matches("x-amz-"), header(name)?)))
                .collect();
            let line = format!("{} {}{asked}\n", request.method(), request.uri());
            if let Ok(mut file) = log.lock() {
                let _ = file.write_all(line.as_bytes());
            }
        }
        if request.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Anonymous requests are not allowed"));
        }
        // Which requests fail is spread evenly and the same for the same order of requests.
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        if (seen * 37) % 100 < self.options.slow_down {
            return Err(s3_error!(SlowDown, "Please reduce your request rate."));
        }
        // Credential=<key>/<date>/<region>/s3/aws4_request
        let signed = header("authorization").and_then(|text| text.split('/').nth(2)).unwrap_or_default();
        if let Some(region) = &self.options.region
            && region != signed
        {
            return Err(s3_error!(
                AuthorizationHeaderMalformed,
                "The authorization header is malformed; the region '{signed}' is wrong; expecting '{region}'"
            ));
        }
        let reads = matches!(request.method().as_str(), "GET" | "HEAD");
        if !reads && self.options.read_only.as_deref() == request.s3_path().get_bucket_name() {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        Ok(())
    }
}

/// Buckets as folders. Whatever changes one key happens one after the other, so that the check of a conditional put
/// and the put are one step.
struct Buckets {
    files: FileSystem,
    folder: PathBuf,
    locks: Vec<tokio::sync::Mutex<()>>,
}

impl Buckets {
    /// Waits for the other writers of this key. `s3s-fs` would make a missing bucket by writing into it.
    async fn lock(&self, bucket: &str, key: &str) -> S3Result<tokio::sync::MutexGuard<'_, ()>> {
        self.exists(bucket)?;
        let mut hasher = DefaultHasher::new();
        (bucket, key).hash(&mut hasher);
        Ok(self.locks[hasher.finish() as usize % self.locks.len()].lock().await)
    }

    fn exists(&self, bucket: &str) -> S3Result<()> {
        if self.folder.join(bucket).is_dir() {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// What is a folder here is only the beginning of keys.
    fn is_object(&self, bucket: &str, key: &str) -> S3Result<()> {
        self.exists(bucket)?;
        if self.folder.join(bucket).join(key).is_dir() {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        }
        Ok(())
    }
}

/// The operations that are handed on as they are, then those that are not.
macro_rules! operations {
    ({$($name:ident($input:ident) -> $output:ident,)*} $($own:tt)*) => {
        #[async_trait]
        impl S3 for Buckets {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.exists(&request.input.bucket)?;
                self.files.$name(request).await
            })*
            $($own)*
        }
    };
}

operations! {
    {
        head_bucket(HeadBucketInput) -> HeadBucketOutput,
        get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput,
        list_objects(ListObjectsInput) -> ListObjectsOutput,
        list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output,
        delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput,
        upload_part(UploadPartInput) -> UploadPartOutput,
        list_parts(ListPartsInput) -> ListPartsOutput,
        abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput,
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.is_object(&request.input.bucket, &request.input.key)?;
        self.files.get_object(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.is_object(&request.input.bucket, &request.input.key)?;
        self.files.head_object(request).await
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(request).await
    }

    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        // The body comes first: a client that stops in the middle of it must hold up nobody.
        if let Some(body) = request.input.body.take() {
            let chunks: Vec<Bytes> = body.try_collect().await.map_err(|_| s3_error!(IncompleteBody))?;
            request.input.body = Some(Body::from(Bytes::from(chunks.concat())).into());
        }
        let _lock = self.lock(&request.input.bucket, &request.input.key).await?;
        self.files.put_object(request).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let _lock = self.lock(&request.input.bucket, &request.input.key).await?;
        self.files.delete_object(request).await
    }

    async fn create_multipart_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.exists(&request.input.bucket)?;
        // `s3s-fs` makes a file name of the key and the upload's id, too long for longer keys; nothing reads it here.
        let key = std::mem::replace(&mut request.input.key, "upload".into());
        let mut response = self.files.create_multipart_upload(request).await?;
        response.output.key = Some(key);
        Ok(response)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let _lock = self.lock(&request.input.bucket, &request.input.key).await?;
        self.files.complete_multipart_upload(request).await
    }
}
