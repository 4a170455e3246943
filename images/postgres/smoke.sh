#!/bin/sh
# Run in the image: a database is made without root, lets its owner in by password only, and keeps what was written.
set -eu
[ "$(id -u)" = 1000 ] || { echo "runs as $(id -u)"; exit 1; }
export DATABASE_FOLDER=/tmp/smoke SOCKET_FOLDER=/tmp/smoke PGCONNECT_TIMEOUT=5
password="it's a \\ password"
mkdir -m 700 -p "$DATABASE_FOLDER"

up() {
    POSTGRES_PASSWORD=$password start -c port=15432 >>/tmp/smoke.log 2>&1 &
    postgres=$!
    tries=300
    until pg_isready --quiet --host=127.0.0.1 --port=15432; do
        kill -0 "$postgres" 2>/dev/null && [ "$tries" -gt 0 ] || { cat /tmp/smoke.log; exit 1; }
        tries=$((tries - 1))
        sleep 0.1
    done
}

down() { kill -INT "$postgres"; wait "$postgres" || true; }
ask() { PGPASSWORD=$1 psql --host=127.0.0.1 --port=15432 --username=hangang --no-psqlrc --tuples-only --no-align --command="$2" hangang; }

up
trap down EXIT
ask "$password" 'CREATE SCHEMA hub_ext; CREATE TABLE hub_ext.kept AS SELECT 42 AS answer' >/dev/null
! ask wrong 'SELECT 1' 2>/dev/null || { echo "a wrong password was taken"; exit 1; }
[ "$(ask "$password" "SELECT rolsuper FROM pg_roles WHERE rolname = 'hangang'")" = f ] || { echo "the owner is superuser"; exit 1; }
[ "$(ask "$password" 'SHOW fsync')" = on ] || { echo "fsync is off"; exit 1; }
[ "$(psql --host="$SOCKET_FOLDER" --port=15432 --username=postgres --tuples-only --no-align --command='SELECT 1')" = 1 ]
down
up
[ "$(ask "$password" 'SELECT answer FROM hub_ext.kept')" = 42 ] || { echo "what was written is gone"; exit 1; }
echo "$(postgres --version) answers"
