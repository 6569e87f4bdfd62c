use super::*;

const PUBLIC: TargetPolicy = TargetPolicy { allow_private: false };
const ANY: TargetPolicy = TargetPolicy { allow_private: true };

#[test]
fn urls_that_lead_inside_are_refused() {
    let cases = [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://10.1.2.3/hook",
        "https://100.64.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://172.31.255.255/",
        "https://192.168.0.10:8443/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[::127.0.0.1]/",
        "https://[fe80::1]/",
        "https://[fc00::1]/",
        "https://[fd12:3456::1]/",
        "https://[ff02::1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:0:1::1]/",
        "https://[2001:db8::1]/",
    ];
    for url in cases {
        let refused = PUBLIC.check(url);
        assert!(matches!(refused, Err(TargetError::PrivateAddress(_))), "{url}: {refused:?}");
        assert!(ANY.check(url).is_ok(), "{url}");
    }
}

#[test]
fn names_of_a_local_network_are_refused() {
    for name in
        ["localhost", "LOCALHOST.", "a.localhost", "printer", "db.internal", "x.home.arpa", "nas.local"]
    {
        let refused = PUBLIC.check(&format!("https://{name}/"));
        assert!(matches!(refused, Err(TargetError::PrivateName(_))), "{name}: {refused:?}");
    }
    for name in ["example.com", "localhost.example.com", "hooks.shop.example.co.uk", "notlocal.io"] {
        assert!(PUBLIC.check(&format!("https://{name}/")).is_ok(), "{name}");
    }
}

#[test]
fn what_is_no_plain_https_url_is_refused() {
    let cases = [
        ("http://example.com/", TargetError::Scheme("http".into())),
        ("ftp://example.com/", TargetError::Scheme("ftp".into())),
        ("file:///etc/passwd", TargetError::Scheme("file".into())),
        ("gopher://example.com/", TargetError::Scheme("gopher".into())),
        ("https://user@example.com/", TargetError::Credentials),
        ("https://:secret@example.com/", TargetError::Credentials),
        ("https://example.com/#part", TargetError::Fragment),
    ];
    for (url, expected) in cases {
        assert_eq!(PUBLIC.check(url), Err(expected), "{url}");
    }
    for url in ["", "/hook", "example.com", "https://", "https://exa mple.com/", "https://example.com:99999/"]
    {
        assert!(matches!(PUBLIC.check(url), Err(TargetError::NoUrl(_))), "{url}");
    }
    let long = format!("https://example.com/{}", "a".repeat(2_048));
    assert_eq!(PUBLIC.check(&long), Err(TargetError::TooLong(long.len())));
    assert!(ANY.check("http://127.0.0.1:9000/hook").is_ok());
    assert_eq!(ANY.check("ftp://127.0.0.1/"), Err(TargetError::Scheme("ftp".into())));
}

#[test]
fn public_addresses_are_public() {
    for address in
        ["1.1.1.1", "8.8.8.8", "93.184.216.34", "100.128.0.1", "172.32.0.1", "198.20.0.1", "223.255.255.255"]
    {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
    for address in ["2606:4700:4700::1111", "2a00:1450:4001::200e", "2001:4860:4860::8888"] {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
}
