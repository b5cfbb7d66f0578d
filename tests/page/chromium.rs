//! A Chromium without windows, driven by its DevTools protocol over two pipes: no port, no further program.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a browser may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// By the names that distributions and people give it.
const PROGRAMS: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
/// One page alone: no sandbox, since tests run as root in containers; nothing of its own over the network.
const FLAGS: [&str; 10] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// For the name of the picture.
    pub name: &'static str,
    /// Width of the window in CSS pixels.
    pub width: u32,
    /// Whether the reader prefers dark.
    pub dark: bool,
}

/// The looks that matter: a desk and a phone, by day and by night.
pub const LOOKS: [Look; 4] = [
    Look { name: "desktop-light", width: 1280, dark: false },
    Look { name: "desktop-dark", width: 1280, dark: true },
    Look { name: "phone-light", width: 390, dark: false },
    Look { name: "phone-dark", width: 390, dark: true },
];

/// One page in a browser of its own, which ends with this value.
pub struct Page {
    browser: Child,
    questions: ChildStdin,
    answers: Receiver<Value>,
    asked: u64,
    session: Option<String>,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Page {
    /// A page without an address; `None`, and a word about it, if this machine has no Chromium.
    pub fn new() -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths)
            .find_map(|path| PROGRAMS.iter().map(|program| path.join(program)).find(|program| program.exists()));
        let Some(program) = found else {
            eprintln!("SKIPPED: no Chromium on the PATH; `make test` installs one");
            return None;
        };
        Some(Self::start(&program))
    }

    fn start(program: &Path) -> Self {
        let profile = TempDir::new().unwrap();
        // It reads from descriptor 3 and writes to 4, which a shell can arrange.
        let mut browser = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (questions, output) = (browser.stdin.take().unwrap(), browser.stdout.take().unwrap());
        let (told, answers) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                if told.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let (session, events) = (None, Vec::new());
        let mut page = Self { browser, questions, answers, asked: 0, session, events, _profile: profile };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let session = page.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        page.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut question = json!({"id": self.asked, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            question["sessionId"] = json!(session);
        }
        self.questions.write_all(format!("{question}\0").as_bytes()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut answer = self.answers.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.asked {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    /// Goes to an address and waits until the document is there.
    pub fn open(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({"url": url}));
        assert!(gone.get("errorText").is_none(), "{url}: {gone}");
        self.until("document.readyState === 'complete' && location.protocol === 'http:'");
    }

    /// Changes the window and what the reader prefers.
    pub fn look(&mut self, look: Look) {
        let phone = look.width < 600;
        let size = json!({"width": look.width, "height": 900, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if look.dark { "dark" } else { "light" };
        self.prefer(&[("prefers-color-scheme", scheme)]);
    }

    /// Sets media features.
    pub fn prefer(&mut self, features: &[(&str, &str)]) {
        let features: Vec<_> = features.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// What a JavaScript expression, or the promise it gives, comes to.
    pub fn eval(&mut self, expression: &str) -> Value {
        let question = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", question);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// The text of an element.
    pub fn text(&mut self, id: &str) -> String {
        let text = self.eval(&format!("document.getElementById({id:?}).textContent"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(&format!("Boolean({expression})")) != json!(true) {
            if Instant::now() > deadline {
                let shown = self.eval("document.body.innerText");
                panic!("waited in vain for {expression}; the page says:\n{}", shown.as_str().unwrap_or_default());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" { "\r" } else { "" };
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Takes a picture of the whole page.
    pub fn picture(&mut self, name: &str) {
        let taken = self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        let bytes = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("{name}.png")), bytes).unwrap();
    }

    /// Addresses that were asked for, up to now.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// What the browser complained about: exceptions, refused content, failed requests.
    pub fn complaints(&self) -> Vec<&Value> {
        let complaint = |event: &&Value| {
            event["method"] == "Runtime.exceptionThrown"
                || (event["method"] == "Log.entryAdded" && event["params"]["entry"]["level"] == "error")
        };
        self.events.iter().filter(complaint).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
