"""What travels between penstock's processes, and the rules that both ends must share.

Control messages are gRPC (`control.proto` and its generated stubs, made by `make proto`). Elements
travel in frames (`wire`: magic, version, lengths, checksum, msgpack header, raw payload) that hold
chunks (`chunk`, `columns`): consecutive elements of one split, stacked so that the buffer they
are received into becomes a tensor without a copy. Every element has a hash and every run a digest
(`hashing`); what an element looks like is a list of `ComponentSpec`s (`spec`). `deal` is the rule
that puts an epoch's splits into lanes, computed alike by dispatcher and client.

Nothing here does I/O except the helpers that send (`sending`) and read frames on a blocking
socket, and nothing knows TensorFlow. Whatever is read from outside is checked before anything is
allocated. docs/protocol.md says what the messages mean together.
"""
