from sgfast.traffic.flow_logs.interface_owners import Role, Shared
from sgfast.traffic.flow_logs.log_records import NoticedRole

ROLES: tuple[Role, ...]

class Interfaces:
    @property
    def shared(self) -> dict[str, Shared]: ...
    @property
    def ends_without_interface(self) -> list[bytes]: ...
    @property
    def noticed(self) -> list[tuple[str, NoticedRole, list[bytes], int, int]]: ...
