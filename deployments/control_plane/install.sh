#!/usr/bin/env bash
# Sets up the control plane without Docker: Debian 12, Ubuntu 22.04 or 24.04 on x86_64. Run it again any time, after a failure too: it does
# what is missing and leaves the rest; with nothing missing it changes nothing.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: sudo deployments/control_plane/install.sh [options]

Sets up this machine as the control plane: PostgreSQL, Prefect's server, the worker of the pool control, Caddy before them, backups and the
watchdog, with settings in /etc/coursedub. README.md beside this script says what is where. With Docker, compose.yaml does the same.

options:
  --watchdog         only the watchdog: on a machine of its own it works on when the control plane is lost
  --dry-run          only say what would be changed
  --no-start         start and restart nothing
  --help             this
EOT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../installing.sh
. "$here/../installing.sh"

PACKAGES=(ca-certificates curl python3 python3-venv)
SERVICES=(coursedub-prefect coursedub-deploy coursedub-control-worker)
watchdog='' no_start=''

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --watchdog) watchdog=yes ;;
        --dry-run) dry_run=yes ;;
        --no-start) no_start=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail "$1: no such option (--help lists them)" ;;
        esac
        shift
    done
    [ -n "$watchdog" ] || PACKAGES+=(caddy ffmpeg postgresql postgresql-client)
}

# --- settings

configure() {
    write_settings worker.env coursedub <"$here/worker.env.example"
    [ -z "$watchdog" ] || {
        write_settings machines.env coursedub <<'EOT'
# The database of leases, on the control plane: the line COURSEDUB_LEASES of its own /etc/coursedub/machines.env, with its address
COURSEDUB_LEASES=
EOT
        return
    }
    write_settings prefect.env root <"$here/prefect.env"
    write_settings backup.env root <<'EOT'
# For how many days backups are kept in /var/lib/coursedub-backups
BACKUP_DAYS=14
EOT
    grep -qs '^PREFECT_AUTHORIZATION=.' $ETC/control.env ||
        change "secrets in $ETC/control.env" "$here/new-secrets" $ETC/control.env
    [ -e $ETC/control.env ] || return 0 # a dry run
    # What each of the services gets of it. Change control.env, then run this again.
    local key prefect leases
    key=$(setting control.env PREFECT_AUTH_STRING) prefect=$(setting control.env PREFECT_PASSWORD) leases=$(setting control.env LEASES_PASSWORD)
    write_settings prefect-secrets.env root <<EOT
# Made of control.env
PREFECT_API_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect:$prefect@127.0.0.1/prefect
PREFECT_SERVER_API_AUTH_STRING=$key
PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS=https://$(setting control.env COURSEDUB_ADDRESS)
EOT
    write_settings machines.env coursedub <<EOT
# Made of control.env
PREFECT_API_URL=http://127.0.0.1:4200/api
PREFECT_UI_URL=https://$(setting control.env COURSEDUB_ADDRESS)
PREFECT_API_AUTH_STRING=$key
COURSEDUB_LEASES=postgresql://leases:$leases@127.0.0.1/leases
EOT
    write_settings deploy.env coursedub <<EOT
# Made of control.env: the way to the leases that is kept in the block of the GPU server, for that machine too
COURSEDUB_LEASES=postgresql://leases:$leases@$(setting control.env LEASES_ADDRESS)/leases
EOT
    write_settings proxy.env root <<EOT
# Made of control.env
COURSEDUB_ADDRESS=$(setting control.env COURSEDUB_ADDRESS)
COURSEDUB_TLS=$(setting control.env COURSEDUB_TLS)
PREFECT_ADDRESS=127.0.0.1:4200
PREFECT_AUTHORIZATION=$(setting control.env PREFECT_AUTHORIZATION)
EOT
}

make_databases() {
    local passwords
    passwords=$({ grep -E '^(PREFECT|LEASES)_PASSWORD=' $ETC/control.env 2>/dev/null || :; } | sha256sum)
    [ "$(cat $ETC/.databases 2>/dev/null || :)" != "$passwords" ] || return 0
    if [ -z "$dry_run" ] && ! as_postgres psql --quiet --command='' 2>/dev/null; then
        say "PostgreSQL does not answer: the databases are left to another run"
        return 0
    fi
    change "databases prefect and leases" write_databases "$passwords"
}

write_databases() {
    PREFECT_PASSWORD=$(setting control.env PREFECT_PASSWORD) LEASES_PASSWORD=$(setting control.env LEASES_PASSWORD) \
        as_postgres psql --quiet --no-psqlrc <"$here/databases.sql" >/dev/null || fail "PostgreSQL could not make the databases"
    (umask 077 && echo "$1" >$ETC/.databases)
}

as_postgres() { (become postgres / "$@"); }

# --- systemd

install_units() {
    local unit units=("$here"/systemd/coursedub-*) reload=''
    [ -z "$watchdog" ] || units=("$here"/systemd/coursedub-watchdog.*)
    for unit in "${units[@]}"; do
        install_file "$unit" "$UNITS/${unit##*/}" 0644
        if [ -n "$installed" ]; then
            reload=yes
            unit=$(basename "$unit" .service)
            [[ " ${SERVICES[*]} " != *" $unit "* ]] || restart_later "$unit"
        fi
    done
    if [ -z "$watchdog" ]; then
        install_file "$here/systemd/caddy.conf" $UNITS/caddy.service.d/coursedub.conf 0644
        if [ -n "$installed" ]; then reload=yes && restart_later caddy; fi
        install_file "$here/Caddyfile" /etc/caddy/coursedub.caddyfile 0644
        [ -z "$installed" ] || restart_later caddy
        [ -e /etc/caddy/users ] || change "/etc/caddy/users, in which nobody is yet" make_users
        install_file "$here/../gpu_server/coursedub" /usr/local/bin/coursedub 0755
        install_file "$here/backup" $OPT/bin/backup 0755
        install_file "$here/restore" $OPT/bin/restore 0755
    fi
    if [ -n "$reload" ] && running_systemd; then
        change "tell systemd" systemctl daemon-reload
    fi
    for unit in $(enabled_units); do
        [ -L "$UNITS/$(wanted_by "$unit").wants/$unit" ] || change "start $unit at boot" systemctl --quiet enable "$unit"
    done
}

make_users() {
    echo "# Who may use the UI and the API: a name and the hash that caddy hash-password gives, a line each." >/etc/caddy/users
    chown root:caddy /etc/caddy/users 2>/dev/null || :
    chmod 0640 /etc/caddy/users
}

enabled_units() {
    echo coursedub-watchdog.timer
    [ -n "$watchdog" ] || printf '%s\n' coursedub-backup.timer coursedub-control-plane.target
}

wanted_by() { case $1 in *.timer) echo timers.target ;; *) echo multi-user.target ;; esac; }

start() {
    local timer needed=(worker.env:COURSEDUB_GPU_SERVER machines.env:COURSEDUB_LEASES) setting
    [ -n "$watchdog" ] || needed+=(control.env:COURSEDUB_TLS control.env:LEASES_ADDRESS)
    if [ -n "$no_start" ]; then
        return
    elif ! running_systemd; then
        say "systemd is not running here: nothing is started"
        return
    fi
    for setting in "${needed[@]}"; do
        [ -n "$(setting "${setting%:*}" "${setting#*:}")" ] || { say "next: set ${setting#*:} in $ETC/${setting%:*}, then run this again" && return; }
    done
    for timer in $(enabled_units | grep 'timer$'); do
        [ "$(systemctl is-active "$timer" || :)" = active ] || change "start $timer" systemctl start "$timer"
    done
    [ -n "$watchdog" ] || {
        restart_for_settings "coursedub-prefect prefect.env prefect-secrets.env" "coursedub-deploy machines.env worker.env deploy.env" \
            "coursedub-control-worker machines.env worker.env" "caddy proxy.env"
        start_target coursedub-control-plane.target
    }
}

# What the link leads to no more and no process uses.
remove_old() {
    local old
    for old in "$OPT"/environments/control-*; do
        [ -d "$old" ] && [ "$old" != "$(readlink $OPT/control)" ] || continue
        grep -qsF "$old/" /proc/[0-9]*/maps || change "remove $old, which nothing uses any more" rm -rf "$old"
    done
}

main() {
    read_options "$@"
    check_machine pyproject.toml deployments/control_plane/requirements.lock deployments/gpu_server/{tools.lock,versions.sh}
    # shellcheck source=../gpu_server/versions.sh
    . "$here/../gpu_server/versions.sh" # Python's
    umask 022
    install_packages
    make_user coursedub
    make_folders
    configure
    [ -n "$watchdog" ] || make_databases
    provide_python
    make_environment control "$here/requirements.lock" coursedub-control-worker "$checkout" pyproject.toml LICENSE dubbing blocks tasks flows
    # All three are of it, and what is deployed follows the code.
    [[ " ${changed_services[*]} " != *" coursedub-control-worker "* ]] || restart_later coursedub-prefect coursedub-deploy
    install_units
    start
    remove_old
    if [ -n "$dry_run" ]; then
        say "a dry run: $changes changes to make, nothing was changed"
    else
        say "done, $changes changes"
    fi
}

main "$@"
