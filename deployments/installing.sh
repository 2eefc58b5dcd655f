# shellcheck shell=bash disable=SC2034  # some of it is for the scripts
# What the install scripts of both machines share: they source this. A change is made by `change`, which says so, or only says so.
# Run again, everything here does what is missing and leaves the rest.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly OPT=/opt/coursedub ETC=/etc/coursedub UNITS=/etc/systemd/system

dry_run='' changes=0 changed_services=() installed=''

say() { echo "install: $*"; }

fail() {
    echo "install: $*" >&2
    exit 1
}

# Do something that changes the server, or only say so.
change() {
    local what=$1
    shift
    changes=$((changes + 1))
    say "$what"
    [ -n "$dry_run" ] || "$@"
}

restart_later() { changed_services+=("$@"); }

# --- what can't be done is refused before anything is changed

# check_machine FILE…: that this is a machine for it, and that the checkout has these.
check_machine() {
    local distribution file
    [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || fail "this is $(uname -s) on $(uname -m), and Linux on x86_64 is needed"
    distribution=$(. /etc/os-release && echo "$ID $VERSION_ID")
    case $distribution in
    "ubuntu 22.04" | "ubuntu 24.04" | "debian 12") ;;
    *) fail "this is $distribution, and Ubuntu 22.04 or 24.04 is needed (Debian 12 works too)" ;;
    esac
    for file; do
        [ -f "$checkout/$file" ] || fail "$checkout has no $file: run this from a whole checkout of the project"
    done
    [ "$(id -u)" = 0 ] || fail "please run this as root: sudo $0"
    command -v systemctl >/dev/null || fail "there is no systemd here"
    # Two at once would write into the same files. The lock goes with its holder.
    exec 9</var/lib
    flock --nonblock 9 || fail "another run is under way"
}

running_systemd() { [ -d /run/systemd/system ]; }

# --- the system

# Those of PACKAGES that are missing.
install_packages() {
    local missing=() package
    for package in "${PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || :)" = "install ok installed" ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] || change "system packages: ${missing[*]}" apt_install "${missing[@]}"
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say "not all package lists could be refreshed; going on with those there are"
    apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >/dev/null ||
        fail "apt-get could not install $*"
}

# make_user NAME: with a folder of its own.
make_user() {
    id "$1" >/dev/null 2>&1 ||
        change "user $1" useradd --system --user-group --home-dir "/var/lib/$1" --no-create-home --shell /usr/sbin/nologin "$1"
    make_folder "/var/lib/$1" 0750 "$1" "$1"
}

make_folders() {
    make_folder $OPT 0755 root root
    make_folder $OPT/bin 0755 root root
    make_folder $OPT/environments 0755 root root
    make_folder $ETC 0750 root coursedub
}

make_folder() {
    [ "$(stat -c '%a %U %G' "$1" 2>/dev/null)" = "${2#0} $3 $4" ] || change "folder $1" install -d -m "$2" -o "$3" -g "$4" "$1"
}

# Copy a file if it isn't there as it should be, and set `installed` if it wasn't.
install_file() {
    local source=$1 target=$2 mode=$3
    installed=''
    ! cmp --silent "$source" "$target" || [ "$(stat -c %a "$target")" != "${mode#0}" ] || return 0
    installed=yes
    change "$target" install -D -m "$mode" "$source" "$target"
}

# --- settings

# Writes a file of settings from what comes in. One that a person has changed stays; what it would be now is put beside it, if that is new.
write_settings() {
    local name=$1 group=$2 target=$ETC/$1 new digest written
    new=$(mktemp)
    cat >"$new"
    digest=$(sha256sum <"$new" | cut -d ' ' -f 1)
    written=$(awk -v name="$name" '$2 == name { print $1 }' "$ETC/.written" 2>/dev/null || :)
    if [ ! -e "$target" ]; then
        change "$target" place_settings "$new" "$target" "$group" "$name" "$digest"
    elif cmp --silent "$new" "$target"; then
        :
    elif [ "$written" != "$digest" ]; then
        if [ "$(sha256sum <"$target" | cut -d ' ' -f 1)" = "$written" ]; then
            change "$target" place_settings "$new" "$target" "$group" "$name" "$digest"
        elif ! cmp --silent "$new" "$target.new"; then
            change "$target was changed by hand and stays; the new one is $target.new" place_settings "$new" "$target.new" "$group" "" ""
        fi
    fi
    if [ -e "$target" ] && [ "$(stat -c '%a %U %G' "$target")" != "640 root $group" ]; then
        change "permissions of $target" own_settings "$target" "$group"
    fi
    rm "$new"
}

place_settings() {
    local new=$1 target=$2 group=$3 name=$4 digest=$5
    install -m 0640 -o root -g "$group" "$new" "$target.part"
    mv "$target.part" "$target"
    [ -z "$name" ] && return
    { grep -v " $name\$" "$ETC/.written" 2>/dev/null || :; echo "$digest $name"; } >"$ETC/.written.part"
    chmod 0600 "$ETC/.written.part"
    mv "$ETC/.written.part" "$ETC/.written"
}

own_settings() { chown "root:$2" "$1" && chmod 0640 "$1"; }

# A setting as it is now, in the form that systemd reads.
setting() { [ ! -r "$ETC/$1" ] || sed -n "s/^$2=//p" "$ETC/$1" | tail -1 | tr -d "\"'"; }

# restart_for_settings "SERVICE FILE…"…: note the settings that a service was not started with yet, whoever changed them.
restart_for_settings() {
    local line service applied
    applied=$(
        cd $ETC || exit
        for line; do
            read -ra line <<<"$line"
            # shellcheck disable=SC2128  # the first is the service
            echo "$line $(cat "${line[@]:1}" | sha256sum)"
        done
    )
    [ "$(cat $ETC/.applied 2>/dev/null || :)" != "$applied" ] || return 0
    for line; do
        service=${line%% *}
        grep -qxF "$(grep "^$service " <<<"$applied")" $ETC/.applied 2>/dev/null || restart_later "$service"
    done
    change "settings for the services" note_applied "$applied"
}

note_applied() {
    (umask 077 && echo "$1" >$ETC/.applied.part)
    mv $ETC/.applied.part $ETC/.applied
}

# start_target TARGET: and restart what runs and was changed.
start_target() {
    local service
    [ "$(systemctl is-active "$1" || :)" = active ] || change "start $1" systemctl start --no-block "$1"
    for service in $(printf '%s\n' "${changed_services[@]}" | sort -u); do
        case $(systemctl is-active "$service" || :) in
        # Not awaited: a worker may first end the lesson in hand.
        active | activating | failed) change "restart $service" systemctl restart --no-block "$service" ;;
        esac
    done
}

# --- Python and environments

# Python 3.11, if the distribution has it. Ubuntu 22.04's python3.11 is a release candidate.
distribution_python() {
    local found
    found=$(command -v python3.11) || return 0
    if "$found" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:4] < (3, 11, 1, "final"))' 2>/dev/null; then
        echo "$found"
    fi
}

provide_python() {
    python=$(distribution_python)
    [ -z "$python" ] || return 0
    python=$OPT/python/cpython-$PYTHON_VERSION-linux-x86_64-gnu/bin/python3.11
    [ -x "$python" ] || change "Python $PYTHON_VERSION" fetch_python
}

fetch_python() {
    local tools=$OPT/tools
    if ! $tools/bin/uv --version >/dev/null 2>&1 || ! cmp --silent "$checkout/deployments/gpu_server/tools.lock" $tools/.lock; then
        python3 -m venv --clear $tools
        pip_install $tools --require-hashes -r "$checkout/deployments/gpu_server/tools.lock"
        cp "$checkout/deployments/gpu_server/tools.lock" $tools/.lock
    fi
    UV_PYTHON_INSTALL_DIR=$OPT/python $tools/bin/uv python install --no-config --no-cache --no-bin --quiet "$PYTHON_VERSION" ||
        fail "Python $PYTHON_VERSION could not be fetched (UV_PYTHON_INSTALL_MIRROR names another place)"
    [ -x "$python" ] || fail "uv brought no $python"
}

# As scripts/setup.sh: the packages that the lock names, nothing else, built with what is in the environment.
pip_install() {
    local environment=$1
    shift
    PIP_USER=0 PIP_ROOT_USER_ACTION=ignore "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
        --no-build-isolation --no-cache-dir "$@" || fail "pip could not install what $environment needs"
}

# The lines of a lock that pin one package.
pin_of() { awk -v start="$1==" '/^[^ ]/ { on = index($0, start) == 1 } on' "$2"; }

# make_environment NAME LOCK SERVICE PROJECT FILE…: $OPT/NAME, a link to an environment that is what the lock says, with a project in it.
# A new lock makes a new environment beside the old one, which is used until the new one is whole.
make_environment() {
    local name=$1 lock=$2 service=$3 project=$4 digest environment sources
    shift 4
    digest=$({ echo "$python" && cat "$lock"; } | sha256sum | cut -c 1-12)
    environment=$OPT/environments/$name-$digest
    [ -e "$environment/.whole" ] || change "environment $name ($(grep -c '^[^ #]' "$lock") packages)" build_environment "$environment" "$lock"
    sources=$(cd "$project" && find "$@" -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum)
    if [ "$(cat "$environment/.project" 2>/dev/null)" != "$sources" ]; then
        change "the project in environment $name" install_project "$environment" "$project" "$sources" "$@"
        restart_later "$service"
    fi
    if [ "$(readlink "$OPT/$name" 2>/dev/null)" != "$environment" ]; then
        change "$OPT/$name" switch_to "$environment" "$OPT/$name"
        restart_later "$service"
    fi
}

build_environment() {
    local environment=$1 lock=$2
    "$python" -m venv --clear "$environment"
    # First the tools of the lock itself: they then build the packages that are published as source only.
    pip_install "$environment" --require-hashes -r <(pin_of pip "$lock" && pin_of setuptools "$lock")
    pip_install "$environment" --require-hashes -r "$lock"
    touch "$environment/.whole"
}

# From a copy: building leaves files where it is done.
install_project() {
    local environment=$1 project=$2 sources=$3 copy
    shift 3
    copy=$(mktemp -d)
    (cd "$project" && find "$@" -type f -not -path '*/__pycache__/*' -print0 | xargs -0 cp --parents -t "$copy")
    pip_install "$environment" --force-reinstall "$copy"
    rm -rf "$copy"
    echo "$sources" >"$environment/.project"
}

switch_to() { ln -sfn "$1" "$2.part" && mv -T "$2.part" "$2"; }

# become USER FOLDER NAME=VALUE… PROGRAM…: go on as a program of this user's, in its folder, without our lock.
become() { cd "$2" && exec setpriv --reuid "$1" --regid "$1" --init-groups -- env HOME="$2" "${@:3}" 9<&-; }

systemd_version() { systemctl --version 2>/dev/null | awk 'NR == 1 { print int($2); found = 1 } END { if (!found) print 0 }'; }
