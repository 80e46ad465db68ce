//! The texts by which a UPnP gateway tells its external address (UPnP IGD: SSDP, a description, one SOAP call).
//!
//! In: what the gateway answers. Out: where to ask on, and the address. No XML parser: three elements are looked for, in
//! bounded text, and what is not there is `None`.

use std::net::{IpAddr, SocketAddr};

/// SSDP's port.
pub const PORT: u16 = 1900;

/// The services that have GetExternalIPAddress, as their types begin.
const SERVICES: [&str; 2] = [
    "urn:schemas-upnp-org:service:WANIPConnection:",
    "urn:schemas-upnp-org:service:WANPPPConnection:",
];

/// The search, sent to the gateway alone.
pub fn search(gateway: IpAddr) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {gateway}:{PORT}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
         ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )
}

/// Where the description is: LOCATION of the answer to a search, as address and path. Only an address will do: the gateway
/// must not send us elsewhere.
pub fn location(answer: &str) -> Option<(SocketAddr, &str)> {
    let line = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("location").then(|| value.trim())
    })?;
    split(line)
}

/// Address and path of a URL.
pub fn split(url: &str) -> Option<(SocketAddr, &str)> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let address = host
        .parse::<SocketAddr>()
        .ok()
        .or_else(|| Some(SocketAddr::new(host.parse().ok()?, 80)))?;
    let sound = !path.contains(|c: char| c.is_whitespace() || c.is_control());
    sound.then_some((address, if path.is_empty() { "/" } else { path }))
}

/// The service's type and the path of its control URL, from the description.
pub fn control(description: &str) -> Option<(&str, &str)> {
    let mut rest = description;
    while let Some((_, after)) = rest.split_once("<service>") {
        let (service, next) = after.split_once("</service>")?;
        let kind = element(service, "serviceType")?;
        if SERVICES.iter().any(|s| kind.starts_with(s)) {
            let url = element(service, "controlURL")?;
            let path = split(url).map_or(url, |(_, path)| path);
            let sound = |t: &str| !t.contains(|c: char| c.is_whitespace() || c.is_control());
            return (sound(path) && sound(kind)).then_some((kind, path));
        }
        rest = next;
    }
    None
}

/// The SOAP call's body.
pub fn question(service: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
         <u:GetExternalIPAddress xmlns:u=\"{service}\"/></s:Body></s:Envelope>"
    )
}

/// What the answer to that says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum External {
    /// The address.
    Address(IpAddr),
    /// It has none: an empty one, or 0.0.0.0.
    None,
    /// An error, by its number.
    Error(u16),
}

/// Reads it; `None` where it is no answer.
pub fn external(answer: &str) -> Option<External> {
    if let Some(text) = element(answer, "NewExternalIPAddress") {
        return match text.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() => Some(External::Address(address)),
            Ok(_) => Some(External::None),
            Err(_) => text.is_empty().then_some(External::None),
        };
    }
    // Elements without a value may be written in one.
    if answer.contains("<NewExternalIPAddress/>") {
        return Some(External::None);
    }
    element(answer, "errorCode")?.parse().ok().map(External::Error)
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let open = format!("<{name}>");
    let close = format!("</{name}>");
    let (_, after) = text.split_once(open.as_str())?;
    let (value, _) = after.split_once(close.as_str())?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_s_texts() {
        let answer = "HTTP/1.1 200 OK\r\nST: x\r\nLocation: http://192.0.2.1:5000/rootDesc.xml\r\n\r\n";
        assert_eq!(
            location(answer),
            Some(("192.0.2.1:5000".parse().unwrap(), "/rootDesc.xml"))
        );
        for bad in [
            "",
            "LOCATION: https://192.0.2.1/x",
            "LOCATION: http://router.lan/x",
            "LOCATION: http://192.0.2.1/a b",
        ] {
            assert_eq!(location(bad), None, "{bad}");
        }
        let service = |kind: &str, url: &str| {
            format!("<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>")
        };
        let kind = "urn:schemas-upnp-org:service:WANIPConnection:1";
        let text =
            service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/a") + &service(kind, "/ctl/IPConn");
        assert_eq!(control(&text), Some((kind, "/ctl/IPConn")));
        let absolute = service(kind, "http://192.0.2.1:5000/ctl");
        assert_eq!(control(&absolute), Some((kind, "/ctl")));
        for bad in [
            service("x", "/a"),
            service(kind, "/a\r\nHost: b"),
            "<service>".to_owned(),
        ] {
            assert_eq!(control(&bad), None, "{bad}");
        }
        let said = "<x><NewExternalIPAddress>198.51.100.7</NewExternalIPAddress></x>";
        assert_eq!(external(said), Some(External::Address([198, 51, 100, 7].into())));
        for (said, expected) in [
            (
                "<NewExternalIPAddress></NewExternalIPAddress>",
                Some(External::None),
            ),
            (
                "<NewExternalIPAddress>0.0.0.0</NewExternalIPAddress>",
                Some(External::None),
            ),
            ("<u><NewExternalIPAddress/></u>", Some(External::None)),
            ("<NewExternalIPAddress>router</NewExternalIPAddress>", None),
            (
                "<UPnPError><errorCode>501</errorCode></UPnPError>",
                Some(External::Error(501)),
            ),
            ("<errorCode>many</errorCode>", None),
            ("", None),
        ] {
            assert_eq!(external(said), expected, "{said}");
        }
    }
}
