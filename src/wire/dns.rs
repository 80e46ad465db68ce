//! DNS questions and answers (RFC 1035) over hickory-proto's codec.
//!
//! In: a name and type, or a datagram. Out: a datagram, or what it says. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Text.
    Txt,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code as the registry spells it (`NOERROR`, `SERVFAIL`, `NXDOMAIN`, …).
    pub code: String,
    /// Whether the server means it: NOERROR, or NXDOMAIN, which is an answer too.
    pub useful: bool,
    /// Whether it was cut to fit a datagram.
    pub truncated: bool,
    /// Addresses in it.
    pub addresses: Vec<IpAddr>,
    /// Texts in it, one for each record.
    pub texts: Vec<String>,
}

/// Why there is no question.
#[derive(Debug, thiserror::Error)]
#[error("'{name}' can be no DNS name: {why}")]
pub struct NameError {
    /// The name.
    pub name: String,
    /// What is wrong.
    pub why: String,
}

/// A question of one name with recursion desired.
pub fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, NameError> {
    let error = |why: String| NameError {
        name: name.to_owned(),
        why,
    };
    let mut parsed = Name::from_ascii(name).map_err(|e| error(e.to_string()))?;
    parsed.set_fqdn(true);
    let kind = match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Txt => RecordType::TXT,
    };
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(parsed, kind));
    message.to_vec().map_err(|e| error(e.to_string()))
}

/// The answer to `question`, or `None` where `datagram` is something else: another transaction's, another name's, a
/// question, noise.
pub fn answer(question: &[u8], datagram: &[u8]) -> Option<Answer> {
    let asked = Message::from_vec(question).ok()?;
    let message = Message::from_vec(datagram).ok()?;
    let same = message.metadata.id == asked.metadata.id
        && message.metadata.message_type == MessageType::Response
        && message.queries == asked.queries;
    if !same {
        return None;
    }
    let code = message.metadata.response_code;
    let mut answer = Answer {
        code: spelled(&code.to_str().to_ascii_uppercase(), u16::from(code)),
        useful: matches!(u16::from(code), 0 | 3),
        truncated: message.metadata.truncation,
        addresses: Vec::new(),
        texts: Vec::new(),
    };
    for record in &message.answers {
        match &record.data {
            RData::A(a) => answer.addresses.push(IpAddr::V4(a.0)),
            RData::AAAA(a) => answer.addresses.push(IpAddr::V6(a.0)),
            RData::TXT(text) => {
                let bytes = text.txt_data.concat();
                answer.texts.push(String::from_utf8_lossy(&bytes).into_owned());
            }
            _ => {}
        }
    }
    Some(answer)
}

/// The registry's mnemonic (RFC 6895, section 2.3).
fn spelled(words: &str, code: u16) -> String {
    match code {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        _ => format!("{words} ({code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, TXT};

    fn reply(question: &[u8], code: ResponseCode) -> Message {
        let mut message = Message::from_vec(question).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code = code;
        message
    }

    #[test]
    fn an_answer_is_read_and_a_strangers_is_not() {
        let asked = question(7, "a.example", Kind::A).unwrap();
        let mut message = reply(&asked, ResponseCode::NoError);
        let name = message.queries[0].name().clone();
        message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
        let bytes = message.to_vec().unwrap();
        let read = answer(&asked, &bytes).unwrap();
        assert_eq!(read.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(read.useful && read.code == "NOERROR");
        for other in [
            question(8, "a.example", Kind::A),
            question(7, "b.example", Kind::A),
        ] {
            assert_eq!(answer(&other.unwrap(), &bytes), None);
        }
        // One's own question come back is no answer.
        assert_eq!(answer(&asked, &asked), None);
        assert_eq!(answer(&asked, b"noise"), None);
    }

    #[test]
    fn refusals_are_answers_that_are_no_use() {
        let asked = question(7, "a.example", Kind::A).unwrap();
        for (code, useful, words) in [
            (ResponseCode::ServFail, false, "SERVFAIL"),
            (ResponseCode::Refused, false, "REFUSED"),
            (ResponseCode::NXDomain, true, "NXDOMAIN"),
        ] {
            let read = answer(&asked, &reply(&asked, code).to_vec().unwrap()).unwrap();
            assert_eq!((read.useful, read.code.as_str()), (useful, words));
        }
    }

    #[test]
    fn texts_of_several_strings_are_one() {
        let asked = question(7, "_instances.internal", Kind::Txt).unwrap();
        let mut message = reply(&asked, ResponseCode::NoError);
        let name = message.queries[0].name().clone();
        let text = TXT::new(vec!["instance=1,".to_owned(), "app=a".to_owned()]);
        message.add_answer(Record::from_rdata(name, 60, RData::TXT(text)));
        let read = answer(&asked, &message.to_vec().unwrap()).unwrap();
        assert_eq!(read.texts, ["instance=1,app=a"]);
    }

    #[test]
    fn a_name_that_can_be_none_is_refused() {
        assert!(question(1, &"a".repeat(64), Kind::A).is_err());
        assert!(question(1, "..", Kind::A).is_err());
    }
}
