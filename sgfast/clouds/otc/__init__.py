"""Open Telekom Cloud and Huawei Cloud: projects of their VPC service, version 3."""
