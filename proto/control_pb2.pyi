from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetInfo(_message.Message):
    __slots__ = ("fingerprint", "num_splits", "weights", "replayable", "components", "graph_bytes", "cache_key")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    NUM_SPLITS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    REPLAYABLE_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_KEY_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    num_splits: int
    weights: _containers.RepeatedScalarFieldContainer[int]
    replayable: bool
    components: bytes
    graph_bytes: int
    cache_key: str
    def __init__(self, fingerprint: _Optional[str] = ..., num_splits: _Optional[int] = ..., weights: _Optional[_Iterable[int]] = ..., replayable: _Optional[bool] = ..., components: _Optional[bytes] = ..., graph_bytes: _Optional[int] = ..., cache_key: _Optional[str] = ...) -> None: ...

class PutDatasetRequest(_message.Message):
    __slots__ = ("info", "part")
    INFO_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    info: DatasetInfo
    part: bytes
    def __init__(self, info: _Optional[_Union[DatasetInfo, _Mapping]] = ..., part: _Optional[bytes] = ...) -> None: ...

class PutDatasetReply(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("fingerprint",)
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    def __init__(self, fingerprint: _Optional[str] = ...) -> None: ...

class GetDatasetReply(_message.Message):
    __slots__ = ("part",)
    PART_FIELD_NUMBER: _ClassVar[int]
    part: bytes
    def __init__(self, part: _Optional[bytes] = ...) -> None: ...

class AnnounceClientRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnnounceClientReply(_message.Message):
    __slots__ = ("term", "arrival")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_FIELD_NUMBER: _ClassVar[int]
    term: int
    arrival: int
    def __init__(self, term: _Optional[int] = ..., arrival: _Optional[int] = ...) -> None: ...

class OpenJobRequest(_message.Message):
    __slots__ = ("protocol_version", "job_name", "client", "streams", "seed", "lanes", "block", "ordered", "attempts_max", "term", "arrival", "cache", "rewind", "failover_extension", "on_bad_element", "max_bad", "consumer")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_MAX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    REWIND_FIELD_NUMBER: _ClassVar[int]
    FAILOVER_EXTENSION_FIELD_NUMBER: _ClassVar[int]
    ON_BAD_ELEMENT_FIELD_NUMBER: _ClassVar[int]
    MAX_BAD_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    job_name: str
    client: str
    streams: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    lanes: int
    block: int
    ordered: bool
    attempts_max: int
    term: int
    arrival: int
    cache: str
    rewind: _containers.RepeatedScalarFieldContainer[int]
    failover_extension: str
    on_bad_element: str
    max_bad: int
    consumer: Consumer
    def __init__(self, protocol_version: _Optional[int] = ..., job_name: _Optional[str] = ..., client: _Optional[str] = ..., streams: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ..., lanes: _Optional[int] = ..., block: _Optional[int] = ..., ordered: _Optional[bool] = ..., attempts_max: _Optional[int] = ..., term: _Optional[int] = ..., arrival: _Optional[int] = ..., cache: _Optional[str] = ..., rewind: _Optional[_Iterable[int]] = ..., failover_extension: _Optional[str] = ..., on_bad_element: _Optional[str] = ..., max_bad: _Optional[int] = ..., consumer: _Optional[_Union[Consumer, _Mapping]] = ...) -> None: ...

class Consumer(_message.Message):
    __slots__ = ("rank", "world", "restore", "generation")
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    rank: int
    world: int
    restore: bool
    generation: int
    def __init__(self, rank: _Optional[int] = ..., world: _Optional[int] = ..., restore: _Optional[bool] = ..., generation: _Optional[int] = ...) -> None: ...

class OpenJobReply(_message.Message):
    __slots__ = ("term", "job", "seed", "next_epoch", "lanes", "block", "generation", "group_position", "position")
    TERM_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NEXT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GROUP_POSITION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    term: int
    job: str
    seed: int
    next_epoch: _containers.RepeatedScalarFieldContainer[int]
    lanes: int
    block: int
    generation: int
    group_position: str
    position: str
    def __init__(self, term: _Optional[int] = ..., job: _Optional[str] = ..., seed: _Optional[int] = ..., next_epoch: _Optional[_Iterable[int]] = ..., lanes: _Optional[int] = ..., block: _Optional[int] = ..., generation: _Optional[int] = ..., group_position: _Optional[str] = ..., position: _Optional[str] = ...) -> None: ...

class Digest(_message.Message):
    __slots__ = ("count", "total", "chain")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    count: int
    total: int
    chain: int
    def __init__(self, count: _Optional[int] = ..., total: _Optional[int] = ..., chain: _Optional[int] = ...) -> None: ...

class SplitDone(_message.Message):
    __slots__ = ("split", "digest")
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    split: int
    digest: Digest
    def __init__(self, split: _Optional[int] = ..., digest: _Optional[_Union[Digest, _Mapping]] = ...) -> None: ...

class Resumed(_message.Message):
    __slots__ = ("splits", "count", "total")
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    splits: _containers.RepeatedScalarFieldContainer[int]
    count: int
    total: int
    def __init__(self, splits: _Optional[_Iterable[int]] = ..., count: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class EpochProgress(_message.Message):
    __slots__ = ("stream", "epoch", "done", "finished", "digest", "resumed")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    stream: int
    epoch: int
    done: _containers.RepeatedCompositeFieldContainer[SplitDone]
    finished: bool
    digest: Digest
    resumed: Resumed
    def __init__(self, stream: _Optional[int] = ..., epoch: _Optional[int] = ..., done: _Optional[_Iterable[_Union[SplitDone, _Mapping]]] = ..., finished: _Optional[bool] = ..., digest: _Optional[_Union[Digest, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("attempt", "code", "detail")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    code: str
    detail: str
    def __init__(self, attempt: _Optional[int] = ..., code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class SyncClientRequest(_message.Message):
    __slots__ = ("job", "client", "term", "seen_version", "hold_ms", "epochs", "problems", "failure", "sequence", "trainer_step")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SEEN_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TRAINER_STEP_FIELD_NUMBER: _ClassVar[int]
    job: str
    client: str
    term: int
    seen_version: int
    hold_ms: int
    epochs: _containers.RepeatedCompositeFieldContainer[EpochProgress]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    failure: str
    sequence: int
    trainer_step: int
    def __init__(self, job: _Optional[str] = ..., client: _Optional[str] = ..., term: _Optional[int] = ..., seen_version: _Optional[int] = ..., hold_ms: _Optional[int] = ..., epochs: _Optional[_Iterable[_Union[EpochProgress, _Mapping]]] = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., failure: _Optional[str] = ..., sequence: _Optional[int] = ..., trainer_step: _Optional[int] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("split", "attempt", "worker", "address", "unix_path", "host_id")
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    UNIX_PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    split: int
    attempt: int
    worker: str
    address: str
    unix_path: str
    host_id: str
    def __init__(self, split: _Optional[int] = ..., attempt: _Optional[int] = ..., worker: _Optional[str] = ..., address: _Optional[str] = ..., unix_path: _Optional[str] = ..., host_id: _Optional[str] = ...) -> None: ...

class EpochView(_message.Message):
    __slots__ = ("stream", "epoch", "placements")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    stream: int
    epoch: int
    placements: _containers.RepeatedCompositeFieldContainer[Placement]
    def __init__(self, stream: _Optional[int] = ..., epoch: _Optional[int] = ..., placements: _Optional[_Iterable[_Union[Placement, _Mapping]]] = ...) -> None: ...

class SyncClientReply(_message.Message):
    __slots__ = ("term", "version", "epochs", "notices", "failure", "joining", "gone")
    TERM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    JOINING_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    term: int
    version: int
    epochs: _containers.RepeatedCompositeFieldContainer[EpochView]
    notices: _containers.RepeatedScalarFieldContainer[str]
    failure: str
    joining: int
    gone: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, term: _Optional[int] = ..., version: _Optional[int] = ..., epochs: _Optional[_Iterable[_Union[EpochView, _Mapping]]] = ..., notices: _Optional[_Iterable[str]] = ..., failure: _Optional[str] = ..., joining: _Optional[int] = ..., gone: _Optional[_Iterable[int]] = ...) -> None: ...

class JoinGroupRequest(_message.Message):
    __slots__ = ("group", "member", "job", "at_least")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    group: str
    member: str
    job: str
    at_least: int
    def __init__(self, group: _Optional[str] = ..., member: _Optional[str] = ..., job: _Optional[str] = ..., at_least: _Optional[int] = ...) -> None: ...

class JoinGroupReply(_message.Message):
    __slots__ = ("term", "seated", "rank", "world", "generation", "waiting")
    TERM_FIELD_NUMBER: _ClassVar[int]
    SEATED_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    term: int
    seated: bool
    rank: int
    world: int
    generation: int
    waiting: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, term: _Optional[int] = ..., seated: _Optional[bool] = ..., rank: _Optional[int] = ..., world: _Optional[int] = ..., generation: _Optional[int] = ..., waiting: _Optional[_Iterable[str]] = ...) -> None: ...

class CommitPositionRequest(_message.Message):
    __slots__ = ("job", "client", "term", "sequence", "epoch", "consumed", "position")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    job: str
    client: str
    term: int
    sequence: int
    epoch: int
    consumed: int
    position: str
    def __init__(self, job: _Optional[str] = ..., client: _Optional[str] = ..., term: _Optional[int] = ..., sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., consumed: _Optional[int] = ..., position: _Optional[str] = ...) -> None: ...

class CommitPositionReply(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class RuleStepRequest(_message.Message):
    __slots__ = ("group", "rank", "ranks", "step", "round", "action", "fingerprint", "alone", "vote_ms", "hold_ms")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    VOTE_MS_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    group: str
    rank: int
    ranks: int
    step: int
    round: int
    action: str
    fingerprint: str
    alone: bool
    vote_ms: int
    hold_ms: int
    def __init__(self, group: _Optional[str] = ..., rank: _Optional[int] = ..., ranks: _Optional[int] = ..., step: _Optional[int] = ..., round: _Optional[int] = ..., action: _Optional[str] = ..., fingerprint: _Optional[str] = ..., alone: _Optional[bool] = ..., vote_ms: _Optional[int] = ..., hold_ms: _Optional[int] = ...) -> None: ...

class RuleStepReply(_message.Message):
    __slots__ = ("term", "action", "rank", "fingerprint")
    TERM_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    term: int
    action: str
    rank: int
    fingerprint: str
    def __init__(self, term: _Optional[int] = ..., action: _Optional[str] = ..., rank: _Optional[int] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class GetPositionRequest(_message.Message):
    __slots__ = ("job_name",)
    JOB_NAME_FIELD_NUMBER: _ClassVar[int]
    job_name: str
    def __init__(self, job_name: _Optional[str] = ...) -> None: ...

class GetPositionReply(_message.Message):
    __slots__ = ("term", "position")
    TERM_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    term: int
    position: str
    def __init__(self, term: _Optional[int] = ..., position: _Optional[str] = ...) -> None: ...

class CloseClientRequest(_message.Message):
    __slots__ = ("job", "client", "leaving", "crash", "trainer_step")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    CRASH_FIELD_NUMBER: _ClassVar[int]
    TRAINER_STEP_FIELD_NUMBER: _ClassVar[int]
    job: str
    client: str
    leaving: bool
    crash: _containers.RepeatedScalarFieldContainer[str]
    trainer_step: int
    def __init__(self, job: _Optional[str] = ..., client: _Optional[str] = ..., leaving: _Optional[bool] = ..., crash: _Optional[_Iterable[str]] = ..., trainer_step: _Optional[int] = ...) -> None: ...

class CloseClientReply(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("dataset", "seed", "epoch", "split", "elements")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    seed: int
    epoch: int
    split: int
    elements: int
    def __init__(self, dataset: _Optional[str] = ..., seed: _Optional[int] = ..., epoch: _Optional[int] = ..., split: _Optional[int] = ..., elements: _Optional[int] = ...) -> None: ...

class CachedSplits(_message.Message):
    __slots__ = ("key", "splits")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    key: str
    splits: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[str] = ..., splits: _Optional[_Iterable[int]] = ...) -> None: ...

class CacheMeasure(_message.Message):
    __slots__ = ("key", "elements", "nbytes", "produce_us", "write_us", "read_us")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    NBYTES_FIELD_NUMBER: _ClassVar[int]
    PRODUCE_US_FIELD_NUMBER: _ClassVar[int]
    WRITE_US_FIELD_NUMBER: _ClassVar[int]
    READ_US_FIELD_NUMBER: _ClassVar[int]
    key: str
    elements: int
    nbytes: int
    produce_us: int
    write_us: int
    read_us: int
    def __init__(self, key: _Optional[str] = ..., elements: _Optional[int] = ..., nbytes: _Optional[int] = ..., produce_us: _Optional[int] = ..., write_us: _Optional[int] = ..., read_us: _Optional[int] = ...) -> None: ...

class KilledSplit(_message.Message):
    __slots__ = ("job", "stream", "epoch", "split", "elements", "exact")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    job: str
    stream: int
    epoch: int
    split: int
    elements: int
    exact: bool
    def __init__(self, job: _Optional[str] = ..., stream: _Optional[int] = ..., epoch: _Optional[int] = ..., split: _Optional[int] = ..., elements: _Optional[int] = ..., exact: _Optional[bool] = ...) -> None: ...

class RegisterWorkerRequest(_message.Message):
    __slots__ = ("protocol_version", "incarnation", "address", "unix_path", "host_id", "slots", "standby", "tensorflow_version", "pid", "checkpoints", "store", "cache_limit", "cached", "limited", "killed", "last_exit")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    UNIX_PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    TENSORFLOW_VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    CACHE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    LIMITED_FIELD_NUMBER: _ClassVar[int]
    KILLED_FIELD_NUMBER: _ClassVar[int]
    LAST_EXIT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    incarnation: str
    address: str
    unix_path: str
    host_id: str
    slots: int
    standby: bool
    tensorflow_version: str
    pid: int
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    store: str
    cache_limit: int
    cached: _containers.RepeatedCompositeFieldContainer[CachedSplits]
    limited: str
    killed: _containers.RepeatedCompositeFieldContainer[KilledSplit]
    last_exit: int
    def __init__(self, protocol_version: _Optional[int] = ..., incarnation: _Optional[str] = ..., address: _Optional[str] = ..., unix_path: _Optional[str] = ..., host_id: _Optional[str] = ..., slots: _Optional[int] = ..., standby: _Optional[bool] = ..., tensorflow_version: _Optional[str] = ..., pid: _Optional[int] = ..., checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., store: _Optional[str] = ..., cache_limit: _Optional[int] = ..., cached: _Optional[_Iterable[_Union[CachedSplits, _Mapping]]] = ..., limited: _Optional[str] = ..., killed: _Optional[_Iterable[_Union[KilledSplit, _Mapping]]] = ..., last_exit: _Optional[int] = ...) -> None: ...

class RegisterWorkerReply(_message.Message):
    __slots__ = ("term", "worker", "heartbeat_ms", "wanted")
    TERM_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    term: int
    worker: str
    heartbeat_ms: int
    wanted: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, term: _Optional[int] = ..., worker: _Optional[str] = ..., heartbeat_ms: _Optional[int] = ..., wanted: _Optional[_Iterable[int]] = ...) -> None: ...

class HeldAttempt(_message.Message):
    __slots__ = ("attempt", "state", "elements", "code", "detail", "restored", "recomputed", "waiting", "element", "exceptions")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RUNNING: _ClassVar[HeldAttempt.State]
        PRODUCED: _ClassVar[HeldAttempt.State]
        FAILED: _ClassVar[HeldAttempt.State]
    RUNNING: HeldAttempt.State
    PRODUCED: HeldAttempt.State
    FAILED: HeldAttempt.State
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_FIELD_NUMBER: _ClassVar[int]
    EXCEPTIONS_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    state: HeldAttempt.State
    elements: int
    code: str
    detail: str
    restored: int
    recomputed: int
    waiting: bool
    element: int
    exceptions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, attempt: _Optional[int] = ..., state: _Optional[_Union[HeldAttempt.State, str]] = ..., elements: _Optional[int] = ..., code: _Optional[str] = ..., detail: _Optional[str] = ..., restored: _Optional[int] = ..., recomputed: _Optional[int] = ..., waiting: _Optional[bool] = ..., element: _Optional[int] = ..., exceptions: _Optional[_Iterable[str]] = ...) -> None: ...

class SyncWorkerRequest(_message.Message):
    __slots__ = ("worker", "incarnation", "term", "seen_version", "hold_ms", "held", "leaving", "cached", "uncached", "measures", "read")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SEEN_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    UNCACHED_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: str
    term: int
    seen_version: int
    hold_ms: int
    held: _containers.RepeatedCompositeFieldContainer[HeldAttempt]
    leaving: bool
    cached: _containers.RepeatedCompositeFieldContainer[CachedSplits]
    uncached: _containers.RepeatedCompositeFieldContainer[CachedSplits]
    measures: _containers.RepeatedCompositeFieldContainer[CacheMeasure]
    read: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[str] = ..., term: _Optional[int] = ..., seen_version: _Optional[int] = ..., hold_ms: _Optional[int] = ..., held: _Optional[_Iterable[_Union[HeldAttempt, _Mapping]]] = ..., leaving: _Optional[bool] = ..., cached: _Optional[_Iterable[_Union[CachedSplits, _Mapping]]] = ..., uncached: _Optional[_Iterable[_Union[CachedSplits, _Mapping]]] = ..., measures: _Optional[_Iterable[_Union[CacheMeasure, _Mapping]]] = ..., read: _Optional[_Iterable[int]] = ...) -> None: ...

class AttemptSpec(_message.Message):
    __slots__ = ("attempt", "job", "stream", "epoch", "split", "dataset", "seed", "trial", "cache", "bad")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TRIAL_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    job: str
    stream: int
    epoch: int
    split: int
    dataset: str
    seed: int
    trial: int
    cache: str
    bad: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, attempt: _Optional[int] = ..., job: _Optional[str] = ..., stream: _Optional[int] = ..., epoch: _Optional[int] = ..., split: _Optional[int] = ..., dataset: _Optional[str] = ..., seed: _Optional[int] = ..., trial: _Optional[int] = ..., cache: _Optional[str] = ..., bad: _Optional[_Iterable[int]] = ...) -> None: ...

class SyncWorkerReply(_message.Message):
    __slots__ = ("term", "version", "registered", "attempts")
    TERM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    term: int
    version: int
    registered: bool
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptSpec]
    def __init__(self, term: _Optional[int] = ..., version: _Optional[int] = ..., registered: _Optional[bool] = ..., attempts: _Optional[_Iterable[_Union[AttemptSpec, _Mapping]]] = ...) -> None: ...

class ReadmitWorkerRequest(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    def __init__(self, worker: _Optional[str] = ...) -> None: ...

class ReadmitWorkerReply(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class RetryElementRequest(_message.Message):
    __slots__ = ("job", "stream", "epoch", "split", "element")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_FIELD_NUMBER: _ClassVar[int]
    job: str
    stream: int
    epoch: int
    split: int
    element: int
    def __init__(self, job: _Optional[str] = ..., stream: _Optional[int] = ..., epoch: _Optional[int] = ..., split: _Optional[int] = ..., element: _Optional[int] = ...) -> None: ...

class RetryElementReply(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...
