//! Certificates for tests, made by openssl.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The kind of key that every certificate here has.
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// A certificate authority and what it has signed.
pub struct Authority {
    directory: TempDir,
}

impl Authority {
    /// With the certificates `server`, for 127.0.0.1, and `client`.
    pub fn new() -> Self {
        let authority = Self { directory: TempDir::new().unwrap() };
        let ca = ["req", "-x509", "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
        authority.openssl(&[&ca[..], &KEY].concat());
        authority.sign("server", 2);
        authority.sign("client", 2);
        authority
    }

    /// Signs a new certificate under an old name, to last for so many days from now; a negative number has passed.
    pub fn sign(&self, name: &str, days: i32) {
        let extensions = match name {
            "server" => "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
            _ => "subjectAltName=DNS:cdc\nextendedKeyUsage=clientAuth\n",
        };
        let file = |kind: &str| format!("{name}.{kind}");
        std::fs::write(self.path(&file("ext")), extensions).unwrap();
        let (subject, days) = (format!("/CN={name}"), days.to_string());
        let request = ["req", "-subj", &subject, "-keyout", &file("key"), "-out", &file("csr")];
        self.openssl(&[&request[..], &KEY].concat());
        let sign = ["x509", "-req", "-in", &file("csr"), "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let out = ["-days", &days, "-extfile", &file("ext"), "-out", &file("pem")];
        self.openssl(&[&sign[..], &out].concat());
    }

    /// Puts the files of another authority in the place of its own, as a rotation would.
    pub fn rotate_to(&self, other: &Self) {
        for file in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"] {
            std::fs::copy(other.path(file), self.path(file)).unwrap();
        }
    }

    /// One of its files: `ca.pem`, `server.key`, ...
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// The client's certificate and key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.path("client.pem"), self.path("client.key"))
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        let output = command.output().expect("openssl: install it to run this test");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
