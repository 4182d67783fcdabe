"""Names that senders and workers must agree on, also across versions: change them on both sides at once."""

from typing import Final

TRAIN_TASK: Final = "tapeline.train"
"""The Celery task. Its argument, a job id, makes the queue readable for operators; to a worker, the message is only a
hint to poll the database."""

TRAIN_QUEUE: Final = "tapeline.train"

MAX_QUEUED: Final = 64
"""The maximum number of messages in the queue. Messages are only hints to poll, so more of them add nothing."""

PROBE_KEY: Final = "tapeline.probe"
"""The key that the broker probe writes."""

CELERY_OPTIONS: Final = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "result_backend": None,
    "task_ignore_result": True,
    "task_default_queue": TRAIN_QUEUE,
    # Early acknowledgement: the lease protects the job; a redelivered message could only start it twice.
    "task_acks_late": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # Also retry when the broker responds with errors (read-only, out of memory, no permission): it may recover.
    "broker_channel_error_retry": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_send_task_events": False,
    # For `celery status` and `inspect`; workers.app removes the commands that change a worker.
    "worker_enable_remote_control": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "task_publish_retry": False,
    "broker_transport_options": {
        "visibility_timeout": 300,
        "socket_timeout": 30,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 25,
    },
}
"""Celery settings of a worker, which survives a restart of its broker."""

SENDER_OPTIONS: Final = CELERY_OPTIONS | {
    "broker_transport_options": {
        "socket_timeout": 3,
        "socket_connect_timeout": 3,
        # One attempt: the message is only a hint, and the sender must not wait for the broker.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
    },
}
"""Celery settings of a process that only sends."""
