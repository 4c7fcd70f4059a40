//! S3 as people set it up: what a real server refuses, profiles, encryption, overload.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::pipeline_support::{POLICIES, Place, files, salmon, succeeded};
use crate::s3_process::{KEY, S3, SECRET, clean};

/// The program with one stage that writes a table, without settings of AWS.
fn writes(place: &Place, url: &str) -> Command {
    let mut command = place.command_at(url, &["prompts"]);
    clean(&mut command, &place.folder);
    command.env("XDG_CACHE_HOME", place.folder.join("cache"));
    command
}

/// The program, counting what was written.
fn counts(home: &Path, url: &str) -> Command {
    let mut command = salmon(&["sql", "--run", url, "--format", "csv", "-c", "select count(*) n from prompts"]);
    clean(&mut command, home);
    command
}

/// The one line of a command that fails within seconds; no line holds a secret, whatever is logged.
fn refused(command: &mut Command) -> String {
    let begin = Instant::now();
    let output = command.output().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30), "took {:?}", begin.elapsed());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(2 | 5)), "{:?}: {stderr}", output.status);
    let lines: Vec<&str> = stderr.lines().collect();
    let [line] = lines[..] else { panic!("not one line: {stderr}") };
    let logged = command.env("SALMON_LOG", "trace").env("RUST_LOG", "trace").output().unwrap();
    let logged = String::from_utf8_lossy(&logged.stderr).into_owned();
    assert!(logged.contains("\nsalmon: ") || logged.starts_with("salmon: "), "{logged}");
    for secret in [KEY, SECRET] {
        assert!(!stderr.contains(secret) && !logged.contains(secret), "{secret} in {stderr}{logged}");
    }
    line.to_string()
}

#[test]
fn refusals_are_one_clear_line() {
    let (s3, home) = (S3::start(&["--region", "eu-west-1", "--read-only", "archive"]), tempfile::tempdir().unwrap());
    std::fs::create_dir(s3.folder.path().join("archive")).unwrap();
    let place = Place::new(POLICIES);
    let change = |command: &mut Command, name: &str, value: &str| {
        command.envs(s3.environment()).env("AWS_REGION", "eu-west-1").env(name, value);
    };
    let write = |url: &str, name: &str, value: &str| {
        let mut command = writes(&place, url);
        change(&mut command, name, value);
        refused(&mut command)
    };
    let read = |url: &str, name: &str, value: &str| {
        let mut command = counts(home.path(), url);
        change(&mut command, name, value);
        refused(&mut command)
    };

    // Everything is right but one thing. A wrong secret holds part of the right one.
    let key = "the credentials were refused; check key and secret, their expiry and this machine's clock";
    for (name, value, code) in [
        ("AWS_ACCESS_KEY_ID", "AKIAOTHEROTHER", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "hunter3-is-another-one", "SignatureDoesNotMatch"),
    ] {
        let line = write("s3://bucket/team/run", name, value);
        let start = format!("salmon: s3://bucket/team/run/config.toml: reading failed: {key} ({code}: ");
        assert!(line.starts_with(&start), "{line}");
        assert!(!line.contains(value), "{line}");
        let line = read("s3://bucket/team/run", name, value);
        assert!(line.starts_with(&format!("salmon: s3://bucket/team/run: listing failed: {key} ({code}: ")), "{line}");
    }
    let region =
        "the bucket is in another region; set AWS_REGION to that of the bucket (AuthorizationHeaderMalformed: ";
    let line = write("s3://bucket/run", "AWS_REGION", "us-east-1");
    assert!(line.starts_with(&format!("salmon: s3://bucket/run/config.toml: reading failed: {region}")), "{line}");
    assert!(line.contains("expecting 'eu-west-1'"), "{line}");
    let line = read("s3://bucket/run", "AWS_REGION", "us-east-1");
    assert!(line.starts_with(&format!("salmon: s3://bucket/run: listing failed: {region}")), "{line}");

    let bucket = "there is no such bucket; check its name and AWS_REGION";
    let line = write("s3://missing/run", "AWS_REGION", "eu-west-1");
    assert_eq!(line, format!("salmon: s3://missing/run/config.toml: writing failed: {bucket}"));
    let line = read("s3://missing/run", "AWS_REGION", "eu-west-1");
    assert_eq!(line, format!("salmon: s3://missing/run: listing failed: {bucket}"));

    let line = write("s3://archive/run", "AWS_REGION", "eu-west-1");
    let permission = "no permission; check what these credentials may do with the bucket (AccessDenied: Access Denied)";
    assert_eq!(line, format!("salmon: s3://archive/run/config.toml: writing failed: {permission}"));
    let line = read("s3://archive/run", "AWS_REGION", "eu-west-1");
    assert_eq!(line, "salmon: s3://archive/run: holds no run; check the URL, or make one with `salmon run`");
}

#[test]
fn a_server_that_is_not_there_is_one_clear_line() {
    let home = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = counts(home.path(), "s3://bucket/run");
    command.envs([("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    let line = refused(command.env("AWS_ENDPOINT_URL", format!("http://{free}")));
    let wanted = "listing failed: the store cannot be reached; check the endpoint and the network (Connection refused";
    assert!(line.starts_with(&format!("salmon: s3://bucket/run: {wanted}")), "{line}");
}

/// Keys are in no object, page, plan or log line of a run that was made with them.
#[test]
fn secrets_are_in_nothing_that_is_written() {
    let (s3, place) = (S3::start(&[]), Place::new(POLICIES));
    let token = "session-token-nobody-shows";
    let run = |mut command: Command| {
        command.envs(s3.environment()).env("AWS_SESSION_TOKEN", token).env("SALMON_LOG", "debug");
        let output = command.output().unwrap();
        succeeded(&output) + &String::from_utf8(output.stdout).unwrap()
    };
    let url = "s3://bucket/run";
    let mut said = run(writes(&place, url));
    let page = place.folder.join("report.html");
    // `information_schema` is off; with it, `store_faults` looks into the settings.
    let statements = "explain verbose select * from prompts where length(instruction) > 9 limit 3; select * from runs";
    for arguments in [
        &["sql", "--run", url, "--format", "json", "-c", statements][..],
        &["runs", "--run", url],
        &["report", "--run", url, "--out", page.to_str().unwrap()],
    ] {
        let mut command = salmon(arguments);
        clean(&mut command, &place.folder);
        said += &run(command);
    }
    assert!(said.contains("ParquetSource") || said.contains("file_type=parquet"), "the plan was shown");
    let written = files(&s3.object("run"));
    assert!(written.len() >= 5, "{:?}", written.keys());
    let page = std::fs::read(page).unwrap();
    for secret in [KEY, SECRET, token] {
        let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!said.contains(secret) && !holds(&page), "{secret}");
        let found: Vec<&String> = written.iter().filter(|(_, bytes)| holds(bytes)).map(|(name, _)| name).collect();
        assert_eq!(found, [""; 0], "{secret}");
    }
}

/// Profiles in the files of a home folder; `keys` are those of the server.
struct Home {
    place: Place,
    s3: S3,
}

impl Home {
    fn new(config: &str, credentials: &str) -> Self {
        let home = Home { place: Place::new(POLICIES), s3: S3::start(&["--region", "eu-west-1"]) };
        let below = home.place.folder.join(".aws");
        std::fs::create_dir(&below).unwrap();
        let fill = |text: &str| {
            let here = home.place.folder.to_str().unwrap();
            text.replace("ENDPOINT", &home.s3.endpoint)
                .replace("HOME", here)
                .replace("KEY", KEY)
                .replace("SECRET", SECRET)
        };
        std::fs::write(below.join("config"), fill(config)).unwrap();
        std::fs::write(below.join("credentials"), fill(credentials)).unwrap();
        home
    }

    /// Writes and reads a run with these variables and no others.
    fn works(&self, environment: &[(&str, &str)]) {
        let url = "s3://bucket/run";
        succeeded(&writes(&self.place, url).envs(environment.iter().copied()).output().unwrap());
        let rows = counts(&self.place.folder, url).envs(environment.iter().copied()).output().unwrap();
        succeeded(&rows);
        let rows: u32 = String::from_utf8(rows.stdout).unwrap().lines().nth(1).unwrap().parse().unwrap();
        assert!(rows > 0);
        std::fs::remove_dir_all(self.s3.object("run")).unwrap();
    }

    fn fails(&self, environment: &[(&str, &str)]) -> String {
        refused(writes(&self.place, "s3://bucket/run").envs(environment.iter().copied()))
    }
}

#[test]
fn profiles_give_keys_region_and_endpoint() {
    let config = "[default]\nregion = eu-west-1\nendpoint_url = ENDPOINT\n\
                  [profile team]\nregion = eu-west-1\nservices = local\n\
                  [services local]\ns3 =\n  endpoint_url = ENDPOINT\n\
                  [profile far]\nregion = us-east-1\nendpoint_url = ENDPOINT\n\
                  [profile empty]\nregion = eu-west-1\nendpoint_url = ENDPOINT\n";
    let credentials = "[default]\naws_access_key_id = KEY\naws_secret_access_key = SECRET\n\
                       [team]\naws_access_key_id = KEY\naws_secret_access_key = SECRET\n\
                       [far]\naws_access_key_id = KEY\naws_secret_access_key = SECRET\n";
    let home = Home::new(config, credentials);
    home.works(&[]);
    home.works(&[("AWS_PROFILE", "team")]);
    // A variable wins over the profile's value.
    home.works(&[("AWS_PROFILE", "far"), ("AWS_REGION", "eu-west-1")]);
    let line = home.fails(&[("AWS_PROFILE", "far")]);
    assert!(line.contains("the bucket is in another region"), "{line}");
    home.works(&[("AWS_PROFILE", "empty"), ("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    let line = home.fails(&[("AWS_PROFILE", "empty")]);
    let none = "there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";
    assert!(line.starts_with(&format!("salmon: s3://bucket/run/config.toml: reading failed: {none} (")), "{line}");
    let line = home.fails(&[("AWS_PROFILE", "teem")]);
    assert!(
        line.starts_with("salmon: AWS_PROFILE=teem: is no profile in ~/.aws/config and ~/.aws/credentials"),
        "{line}"
    );
    assert!(line.ends_with("there are default, empty, far, team"), "{line}");
    // Keys in the environment alone: no file is looked at.
    let endpoint = home.s3.endpoint.clone();
    std::fs::write(home.place.folder.join(".aws/config"), "[default\nthis is no profile").unwrap();
    home.works(&[
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL", &endpoint),
    ]);
    let line = home.fails(&[]);
    assert!(line.starts_with("salmon: AWS profiles: cannot be read; look at ~/.aws/config ("), "{line}");
}

#[test]
fn a_process_gives_credentials_and_is_asked_again_before_they_expire() {
    let config = "[profile long]\nregion = eu-west-1\nendpoint_url = ENDPOINT\ncredential_process = HOME/keys long\n\
                  [profile short]\nregion = eu-west-1\nendpoint_url = ENDPOINT\ncredential_process = HOME/keys short\n\
                  [profile broken]\nregion = eu-west-1\nendpoint_url = ENDPOINT\ncredential_process = HOME/keys broken\n";
    let home = Home::new(config, "");
    let script = format!(
        "#!/bin/sh\necho asked >> {0}/asked-$1\n[ $1 = broken ] && echo 'no {SECRET} today' >&2 && exit 3\n\
         [ $1 = short ] && until=$(date -u -d '+30 seconds' +%Y-%m-%dT%H:%M:%SZ) || until=2099-01-01T00:00:00Z\n\
         echo '{{\"Version\": 1, \"AccessKeyId\": \"{KEY}\", \"SecretAccessKey\": \"{SECRET}\", \"Expiration\": \"'$until'\"}}'\n",
        home.place.folder.display()
    );
    let program = home.place.folder.join("keys");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let asked =
        |name: &str| std::fs::read_to_string(home.place.folder.join(format!("asked-{name}"))).unwrap().lines().count();
    home.works(&[("AWS_PROFILE", "long")]);
    assert_eq!(asked("long"), 2, "once in each of two processes");
    home.works(&[("AWS_PROFILE", "short")]);
    assert!(asked("short") > 2);
    // What the process says may be a secret; this one is not known to be one, so it is in no line but that of the failure.
    let mut command = writes(&home.place, "s3://bucket/run");
    let output = command.env("AWS_PROFILE", "broken").env("AWS_SECRET_ACCESS_KEY", SECRET).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("there are no credentials for S3") && !line.contains(SECRET), "{line}");
}

/// A role of a profile whose keys are another's: the server takes only what the role's session has.
#[test]
fn a_role_is_assumed_with_the_keys_of_another_profile() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tokens = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let seen = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = vec![0u8; 16_384];
            let mut n = connection.read(&mut request).unwrap();
            if !String::from_utf8_lossy(&request[..n]).contains("Action=") {
                n += connection.read(&mut request[n..]).unwrap();
            }
            seen.lock().unwrap().push_str(&String::from_utf8_lossy(&request[..n]));
            let body = format!(
                "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
                 <AssumedRoleId>A:s</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser><Credentials>\
                 <AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>\
                 <SessionToken>session-token-of-the-role</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
                 </Credentials></AssumeRoleResult></AssumeRoleResponse>"
            );
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\nconnection: close";
            let _ = write!(connection, "{head}\r\ncontent-length: {length}\r\n\r\n{body}");
        }
    });
    let config = "[profile role]\nregion = eu-west-1\nendpoint_url = ENDPOINT\nrole_arn = arn:aws:iam::1:role/r\n\
                  source_profile = keys\n[profile keys]\nregion = eu-west-1\n";
    let home =
        Home::new(config, "[keys]\naws_access_key_id = AKIASOURCESOURCE\naws_secret_access_key = source-secret\n");
    let environment = [("AWS_PROFILE", "role"), ("AWS_ENDPOINT_URL_STS", tokens.as_str())];
    home.works(&environment);
    let request = asked.lock().unwrap().clone();
    assert!(request.contains("Action=AssumeRole") && request.contains("AKIASOURCESOURCE"), "{request}");
    // Nothing of the session is logged.
    let output = writes(&home.place, "s3://bucket/run").envs(environment).env("SALMON_LOG", "trace").output().unwrap();
    let logged = succeeded(&output);
    assert!(logged.lines().count() > 10);
    for secret in [KEY, SECRET, "session-token-of-the-role", "source-secret"] {
        assert!(!logged.contains(secret), "{secret} in {logged}");
    }
}

#[test]
fn encryption_is_asked_for_with_every_write() {
    let place = Place::new(POLICIES);
    let log = place.folder.join("requests");
    let s3 = S3::start(&["--log", log.to_str().unwrap()]);
    let run = |environment: &[(&str, &str)]| -> Output {
        let mut command = writes(&place, "s3://bucket/run");
        command.envs(s3.environment()).envs(environment.iter().copied()).output().unwrap()
    };
    succeeded(&run(&[("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms"), ("AWS_SSE_KMS_KEY_ID", "alias/team")]));
    let requests = std::fs::read_to_string(&log).unwrap();
    let puts: Vec<&str> = requests.lines().filter(|line| line.starts_with("PUT ")).collect();
    assert!(puts.len() > 3, "{requests}");
    let asked = " server-side-encryption=aws:kms server-side-encryption-aws-kms-key-id=alias/team";
    assert!(puts.iter().all(|line| line.ends_with(asked)), "{requests}");
    std::fs::remove_dir_all(s3.object("run")).unwrap();
    succeeded(&run(&[("AWS_SERVER_SIDE_ENCRYPTION", "AES256")]));
    let requests = std::fs::read_to_string(&log).unwrap();
    assert!(requests.lines().any(|line| line.ends_with(" server-side-encryption=AES256")), "{requests}");
    let bad = run(&[("AWS_SERVER_SIDE_ENCRYPTION", "rot13")]);
    let line = String::from_utf8(bad.stderr).unwrap();
    assert_eq!((bad.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.starts_with("salmon: s3://bucket/run: the store cannot be set up ("), "{line}");
}

#[test]
fn an_overloaded_server_is_asked_again() {
    let place = Place::new(POLICIES);
    let s3 = S3::start(&["--slow-down", "25"]);
    succeeded(&writes(&place, "s3://bucket/run").envs(s3.environment()).output().unwrap());
    let rows = counts(&place.folder, "s3://bucket/run").envs(s3.environment()).output().unwrap();
    succeeded(&rows);
}
