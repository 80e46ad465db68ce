//! WireGuard keys for tests. Private parts have no `Debug` and reach `wg` by standard input only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand_core::{OsRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A key pair.
#[derive(Clone)]
pub struct Keys {
    private: Zeroizing<[u8; 32]>,
    public: String,
}

impl Keys {
    /// A new pair, as `wg genkey | wg pubkey` would make.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(bytes.as_mut());
        let secret = StaticSecret::from(*bytes);
        // to_bytes gives the clamped form, which is what `wg genkey` prints and `wg show` gives back.
        let private = Zeroizing::new(secret.to_bytes());
        Self {
            private,
            public: STANDARD.encode(PublicKey::from(&secret).as_bytes()),
        }
    }

    /// The public key in base64.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The private key's bytes, for tests that speak the protocol themselves.
    pub fn private_bytes(&self) -> &[u8; 32] {
        &self.private
    }

    /// The private key in base64, for files that a test hands to wgnat. Never print it.
    pub fn private_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.private.as_slice()))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.public)
    }
}

/// A pre-shared key.
#[derive(Clone)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl PresharedKey {
    /// A new one.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    /// In base64. Never print it.
    pub fn base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }
}

impl std::fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresharedKey")
    }
}
