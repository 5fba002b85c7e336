#!/bin/sh
echo "hello from $(. /etc/os-release; echo "$IMAGE_ID")"
