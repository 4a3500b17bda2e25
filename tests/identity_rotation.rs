//! Instance identity that is renewed in the platform's order, faster than it can be read, under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::rotation::{Platform, descriptors, failed_reloads, numbered};
use crate::support::{Identity, Nginx, Pki, Proxy, Wire, eventually};

const CLIENTS: usize = 50;
const FIRST: u64 = 0x00ab_cd00;
const RENEWALS: u64 = 300;
const PACE: Duration = Duration::from_millis(10);

/// One client: half of them keep their connection, half make one for each request.
struct Client<'p> {
    proxy: &'p Proxy,
    kept: Option<Wire>,
    url: &'p str,
}

impl Client<'_> {
    /// Asks which certificate it is that the upstream sees.
    fn serial(&mut self) -> u64 {
        let url = self.url;
        let answer = match &mut self.kept {
            Some(wire) => wire.ask(format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n")),
            None => self.proxy.get(url),
        };
        let text = answer.text();
        assert_eq!(answer.status, 200, "{text}");
        u64::from_str_radix(text.split(' ').next().unwrap(), 16).unwrap()
    }
}

/// Each file is renamed into its place, the key first; so half of the time key and certificate do not fit, and often one
/// of them changes while the other is read.
#[test]
fn fifty_requests_at_a_time_survive_a_renewal_every_ten_milliseconds() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, false);
    let pairs: Vec<Identity> = (0..=RENEWALS).map(|n| numbered(&pki, FIRST + n)).collect();
    let platform = Platform::new(&pairs[0]);
    let proxy = platform.proxy(&pki, &nginx.authority(), "");
    let url = format!("http://{}/serial", nginx.authority());
    eventually("a start", || proxy.page("/readyz").status == 200);
    let before = descriptors(&proxy);
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (proxy, url, is_over, asked) = (&proxy, &url, &is_over, &asked);
            scope.spawn(move || {
                let kept = (number % 2 == 0).then(|| proxy.wire());
                let mut client = Client { proxy, kept, url };
                let mut newest = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let serial = client.serial();
                    assert!((FIRST..=FIRST + RENEWALS).contains(&serial), "{serial:x}");
                    // What has been replaced is not used for anything new.
                    assert!(serial >= newest, "{serial:x} after {newest:x}");
                    newest = serial;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begin = Instant::now();
        for (n, pair) in (1..).zip(&pairs[1..]) {
            if let Some(wait) = (begin + PACE * n).checked_duration_since(Instant::now()) {
                thread::park_timeout(wait);
            }
            platform.renew(pair, PACE / 2);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let kept = Some(proxy.wire());
    let mut client = Client {
        proxy: &proxy,
        kept,
        url: &url,
    };
    eventually("the last one is used", || client.serial() == FIRST + RENEWALS);
    println!("{} requests", asked.load(Ordering::Relaxed));
    assert!(asked.load(Ordering::Relaxed) > 10 * CLIENTS);
    assert_eq!(failed_reloads(&proxy), 0.0, "{}", proxy.log());
    for word in ["\"ERROR\"", "\"WARN\""] {
        assert!(!proxy.log().contains(word), "{}", proxy.log());
    }
    // The connections of all the identities before are gone; one more renewal retires those of the last.
    platform.renew(&pairs[0], Duration::ZERO);
    drop(client);
    eventually("no descriptor more than before", || descriptors(&proxy) <= before);
}
