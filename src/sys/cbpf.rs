//! An assembler for classic BPF socket filters, with labels instead of counted jumps.
//!
//! In: calls, one an instruction. Out: instructions for `SO_ATTACH_FILTER`. The machine is the one of
//! Documentation/networking/filter.rst: an accumulator A, an index register X, forward jumps of at most 255, and a
//! load past the packet's end that rejects it.

use libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP,
    BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_LEN, BPF_LSH, BPF_MISC, BPF_MSH, BPF_RET, BPF_SUB, BPF_TAX, BPF_W,
    BPF_X, SKF_AD_OFF, SKF_AD_PKTTYPE, SKF_AD_PROTOCOL, SKF_AD_RANDOM,
};

/// `BPF_MAXINSNS`: what the kernel takes at most.
const MAX_INSTRUCTIONS: usize = 4096;

/// `struct sock_filter` (include/uapi/linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, size, mode or operation.
    pub code: u16,
    /// Instructions to skip where the test holds.
    pub jt: u8,
    /// Instructions to skip where it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A place in the program that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Why a program cannot be assembled: a mistake in the program, never in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A jump to a label that was not placed after it, or that is out of reach.
    #[error("the jump at instruction {0} has no place to go to within reach")]
    Jump(usize),
    /// Too long for the kernel, or empty.
    #[error("a filter of {0} instructions")]
    Length(usize),
}

/// How A is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// A == k.
    Equal,
    /// A >= k, unsigned.
    AtLeast,
    /// A & k != 0.
    AnyBit,
}

/// Where a jump goes.
#[derive(Clone, Copy)]
enum To {
    Next,
    Label(Label),
}

/// The program so far.
#[derive(Default)]
pub struct Assembler {
    code: Vec<(Instruction, To, To)>,
    labels: Vec<Option<usize>>,
}

impl Assembler {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// A label to be placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts `label` before the next instruction.
    pub fn place(&mut self, label: Label) {
        let here = self.code.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(here);
        }
    }

    /// A = the frame's protocol (`skb->protocol`), an EtherType in host order.
    pub fn load_protocol(&mut self) {
        self.plain(
            BPF_LD | BPF_W | BPF_ABS,
            (SKF_AD_OFF + SKF_AD_PROTOCOL).cast_unsigned(),
        );
    }

    /// A = which way the packet goes (`skb->pkt_type`): `PACKET_OUTGOING` for what leaves, others for what comes in.
    pub fn load_packet_type(&mut self) {
        self.plain(
            BPF_LD | BPF_W | BPF_ABS,
            (SKF_AD_OFF + SKF_AD_PKTTYPE).cast_unsigned(),
        );
    }

    /// A = 32 random bits, new ones each time.
    pub fn load_random(&mut self) {
        self.plain(
            BPF_LD | BPF_W | BPF_ABS,
            (SKF_AD_OFF + SKF_AD_RANDOM).cast_unsigned(),
        );
    }

    /// A = the packet's length in bytes.
    pub fn load_length(&mut self) {
        self.plain(BPF_LD | BPF_W | BPF_LEN, 0);
    }

    /// A = the byte at `at`.
    pub fn load_byte(&mut self, at: u32) {
        self.plain(BPF_LD | BPF_B | BPF_ABS, at);
    }

    /// A = the big-endian 16 bits at `at`.
    pub fn load_half(&mut self, at: u32) {
        self.plain(BPF_LD | BPF_H | BPF_ABS, at);
    }

    /// A = the byte at X + `at`.
    pub fn load_byte_x(&mut self, at: u32) {
        self.plain(BPF_LD | BPF_B | BPF_IND, at);
    }

    /// A = the big-endian 16 bits at X + `at`.
    pub fn load_half_x(&mut self, at: u32) {
        self.plain(BPF_LD | BPF_H | BPF_IND, at);
    }

    /// A = the big-endian 32 bits at X + `at`.
    pub fn load_word_x(&mut self, at: u32) {
        self.plain(BPF_LD | BPF_W | BPF_IND, at);
    }

    /// X = 4 × the low four bits of the byte at `at`: an IPv4 header's length.
    pub fn header_length_to_x(&mut self, at: u32) {
        self.plain(BPF_LDX | BPF_B | BPF_MSH, at);
    }

    /// X = `value`.
    pub fn set_x(&mut self, value: u32) {
        self.plain(BPF_LDX | BPF_W | BPF_IMM, value);
    }

    /// X = A.
    pub fn a_to_x(&mut self) {
        self.plain(BPF_MISC | BPF_TAX, 0);
    }

    /// A &= `mask`.
    pub fn and(&mut self, mask: u32) {
        self.plain(BPF_ALU | BPF_AND | BPF_K, mask);
    }

    /// A <<= `bits`.
    pub fn shift_left(&mut self, bits: u32) {
        self.plain(BPF_ALU | BPF_LSH | BPF_K, bits);
    }

    /// A += `value`.
    pub fn add(&mut self, value: u32) {
        self.plain(BPF_ALU | BPF_ADD | BPF_K, value);
    }

    /// A += X.
    pub fn add_x(&mut self) {
        self.plain(BPF_ALU | BPF_ADD | BPF_X, 0);
    }

    /// A -= X.
    pub fn subtract_x(&mut self) {
        self.plain(BPF_ALU | BPF_SUB | BPF_X, 0);
    }

    /// Goes to `yes` where the test holds, on to the next instruction where not.
    pub fn jump_if(&mut self, test: Test, k: u32, yes: Label) {
        self.test(test, k, To::Label(yes), To::Next);
    }

    /// Goes to `no` where the test does not hold, on to the next instruction where it does.
    pub fn jump_unless(&mut self, test: Test, k: u32, no: Label) {
        self.test(test, k, To::Next, To::Label(no));
    }

    /// Goes to `to`.
    pub fn jump(&mut self, to: Label) {
        self.push(BPF_JMP | BPF_JA, 0, To::Label(to), To::Next);
    }

    /// Ends: the packet's first `bytes` are handed out; 0 rejects it.
    pub fn end(&mut self, bytes: u32) {
        self.plain(BPF_RET | BPF_K, bytes);
    }

    /// The program, with its jumps counted out.
    pub fn finish(self) -> Result<Vec<Instruction>, AssembleError> {
        let length = self.code.len();
        if length == 0 || length > MAX_INSTRUCTIONS {
            return Err(AssembleError::Length(length));
        }
        let labels = self.labels;
        let distance = |from: usize, to: To| match to {
            To::Next => Ok(0),
            To::Label(label) => labels
                .get(label.0)
                .copied()
                .flatten()
                .filter(|place| *place < length)
                .and_then(|place| place.checked_sub(from + 1))
                .ok_or(AssembleError::Jump(from)),
        };
        let near = |from, distance: usize| u8::try_from(distance).map_err(|_| AssembleError::Jump(from));
        self.code
            .into_iter()
            .enumerate()
            .map(|(at, (mut instruction, yes, no))| {
                let (yes, no) = (distance(at, yes)?, distance(at, no)?);
                if u32::from(instruction.code) == BPF_JMP | BPF_JA {
                    instruction.k = u32::try_from(yes).map_err(|_| AssembleError::Jump(at))?;
                } else {
                    (instruction.jt, instruction.jf) = (near(at, yes)?, near(at, no)?);
                }
                Ok(instruction)
            })
            .collect()
    }

    fn test(&mut self, test: Test, k: u32, yes: To, no: To) {
        let operation = match test {
            Test::Equal => BPF_JEQ,
            Test::AtLeast => BPF_JGE,
            Test::AnyBit => BPF_JSET,
        };
        self.push(BPF_JMP | operation | BPF_K, k, yes, no);
    }

    fn plain(&mut self, code: u32, k: u32) {
        self.push(code, k, To::Next, To::Next);
    }

    fn push(&mut self, code: u32, k: u32, yes: To, no: To) {
        // Every code is the sum of constants below 0x100.
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        self.code.push((
            Instruction {
                code,
                jt: 0,
                jf: 0,
                k,
            },
            yes,
            no,
        ));
    }
}

/// The machine itself, for tests: what the kernel would answer, without a kernel.
#[cfg(test)]
pub(crate) mod machine {
    use super::*;

    /// What the kernel knows of a packet beside its bytes.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Beside {
        /// Its EtherType.
        pub protocol: u16,
        /// `skb->pkt_type`.
        pub packet_type: u8,
        /// What a load of random bits gives.
        pub random: u32,
    }

    /// Runs `program` on `packet` whose EtherType is `protocol`; the bytes to hand out, 0 for none.
    pub fn run(program: &[Instruction], protocol: u16, packet: &[u8]) -> u32 {
        let beside = Beside {
            protocol,
            ..Beside::default()
        };
        run_beside(program, beside, packet)
    }

    /// The same, with all that a program can ask for.
    pub fn run_beside(program: &[Instruction], beside: Beside, packet: &[u8]) -> u32 {
        let ancillary = |k: u32| match k.wrapping_sub(SKF_AD_OFF.cast_unsigned()).cast_signed() {
            SKF_AD_PROTOCOL => Some(u32::from(beside.protocol)),
            SKF_AD_PKTTYPE => Some(u32::from(beside.packet_type)),
            SKF_AD_RANDOM => Some(beside.random),
            _ => None,
        };
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let code = u32::from(code);
            let load = |offset: u32, size: u32| {
                let bytes = packet.get(offset as usize..(offset as usize).checked_add(size as usize)?)?;
                Some(
                    bytes
                        .iter()
                        .fold(0u32, |value, byte| value << 8 | u32::from(*byte)),
                )
            };
            let size = match code & 0x18 {
                BPF_W => 4,
                BPF_H => 2,
                _ => 1,
            };
            match code & 0x07 {
                BPF_LD => {
                    let value = match code & 0xe0 {
                        BPF_ABS => ancillary(k).or_else(|| load(k, size)),
                        BPF_IND => x.checked_add(k).and_then(|at| load(at, size)),
                        BPF_LEN => u32::try_from(packet.len()).ok(),
                        mode => panic!("load mode {mode:#x}"),
                    };
                    let Some(value) = value else { return 0 };
                    a = value;
                }
                BPF_LDX => {
                    x = match code & 0xe0 {
                        BPF_IMM => k,
                        BPF_MSH => match load(k, 1) {
                            Some(byte) => 4 * (byte & 15),
                            None => return 0,
                        },
                        mode => panic!("index load mode {mode:#x}"),
                    }
                }
                BPF_ALU => {
                    let operand = if code & BPF_X == 0 { k } else { x };
                    a = match code & 0xf0 {
                        BPF_AND => a & operand,
                        BPF_LSH => a << operand,
                        BPF_ADD => a.wrapping_add(operand),
                        BPF_SUB => a.wrapping_sub(operand),
                        operation => panic!("operation {operation:#x}"),
                    }
                }
                BPF_JMP => {
                    let holds = match code & 0xf0 {
                        BPF_JA => {
                            at += k as usize;
                            continue;
                        }
                        BPF_JEQ => a == k,
                        BPF_JGE => a >= k,
                        BPF_JSET => a & k != 0,
                        test => panic!("test {test:#x}"),
                    };
                    at += usize::from(if holds { jt } else { jf });
                }
                BPF_MISC => x = a,
                BPF_RET => return k,
                class => panic!("class {class:#x}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_distances() {
        let mut asm = Assembler::new();
        let (four, out) = (asm.label(), asm.label());
        asm.load_protocol();
        asm.jump_if(Test::Equal, 0x0800, four);
        asm.jump_unless(Test::AtLeast, 0x86dd, out);
        asm.jump(out);
        asm.place(four);
        asm.load_length();
        asm.end(7);
        asm.place(out);
        asm.end(0);
        let program = asm.finish().unwrap();
        let jumps: Vec<_> = program.iter().map(|i| (i.jt, i.jf, i.k)).collect();
        assert_eq!(jumps[1..4], [(2, 0, 0x0800), (0, 3, 0x86dd), (0, 0, 2)]);
        assert_eq!(machine::run(&program, 0x0800, &[9; 7]), 7);
        assert_eq!(machine::run(&program, 0x86dd, &[9; 7]), 0);
    }

    #[test]
    fn jumps_that_lead_nowhere_are_refused() {
        assert_eq!(Assembler::new().finish(), Err(AssembleError::Length(0)));
        for place in [false, true] {
            let mut asm = Assembler::new();
            let label = asm.label();
            if place {
                asm.place(label); // behind the jump
            }
            asm.jump_if(Test::AnyBit, 1, label);
            asm.end(0);
            assert_eq!(asm.finish(), Err(AssembleError::Jump(0)));
        }
        let mut far = Assembler::new();
        let label = far.label();
        far.jump_if(Test::Equal, 1, label);
        (0..256).for_each(|_| far.end(0));
        far.place(label);
        far.end(0);
        assert_eq!(far.finish(), Err(AssembleError::Jump(0)));
    }
}
