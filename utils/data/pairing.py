"""Which mask belongs to which picture: by their names, and by the folders that they lie in."""

import itertools
import re
import shlex
import unicodedata
from collections import Counter

import numpy as np

from utils.command import InputError, in_all
from utils.data.pictures import PLAIN
from utils.data.scenes import UNKNOWN

MIN_FOLDERS = 5  # of so many folders each is a scene: a split into folds needs as many
# Parts of a data set: train, validation, TestEasyDataset
SPLIT_FOLDER = re.compile(
    r"(train(ing)?|test(ing)?|val(id(ation)?)?)[ _-]?(easy|hard)?(data)?(set)?|(un)?seen", re.I
)


def pair_files(label, pictures, masks, convention=PLAIN):
    """Return a dictionary: for each name the file of the picture and those of its masks, a list.

    pictures, masks: a dictionary each, of paths below the folders, without extensions, by file.
    Names are compared in Unicode's form NFC, and without letter case unless that would make two
    alike. A folder that all files of one side lie in, as in masks/polyp/, is left out if the other
    side has none. Raises InputError for a doubled name, for a file without a partner, and for
    no pair at all.
    """
    picture_affix, mask_affix = affixes(convention.names)
    pictures, masks = tell_apart(pictures, masks, mask_affix, convention.unite)
    if not convention.unite:  # else a folder of masks may be that of a picture
        pictures, masks = drop_deeper_top(pictures, masks)
    sides = [set(side.values()) for side in (pictures, masks)]
    distinct = all(len({key.casefold() for key in side}) == len(side) for side in sides)
    fold = str.casefold if distinct else str
    pairs, name_of, alone, left = {}, {}, [], []
    for file, key in pictures.items():
        name = name_in(key, picture_affix)
        if name is None:
            alone.append(file)
        elif fold(name) in pairs:
            raise InputError(f"{file}: same name as {pairs[fold(name)][0]}; remove one of them")
        else:
            pairs[fold(name)], name_of[fold(name)] = [file], name
    for file, key in masks.items():
        names = map(fold, names_in_mask(key, mask_affix, convention.unite))
        name = next((name for name in names if name in pairs), None)
        if name is None:
            left.append(file)
        elif len(pairs[name]) > 1 and not convention.unite:
            raise InputError(f"{file}: same name as {pairs[name][1]}; remove one of them")
        else:
            pairs[name].append(file)
    alone += [files[0] for files in pairs.values() if len(files) == 1]
    if alone or left:
        raise unpaired(pictures, masks, sorted(alone), sorted(left), convention)
    if not pairs:
        raise InputError(f"{label}: holds no pairs")
    return {name_of[name]: files for name, files in pairs.items()}


def tell_apart(pictures, masks, mask_affix, unite):
    """Return both dictionaries of `pair_files` without each other's files, and in NFC.

    Of files that stand in both, those that can be masks by their names are no pictures.
    """
    both = pictures.keys() & masks.keys()
    are_masks = {file for file in both if names_in_mask(masks[file], mask_affix, unite)}
    return [
        {f: unicodedata.normalize("NFC", key) for f, key in side.items() if f not in others}
        for side, others in ((pictures, are_masks), (masks, both - are_masks))
    ]


def drop_deeper_top(pictures, masks):
    """Return both dictionaries of `pair_files`, the one side no deeper than the other.

    The folders that all files of a side lie in are dropped where they only go on from the other's.
    """
    sides, tops = (pictures, masks), []
    for side in sides:
        folders = [key.split("/")[:-1] for key in side.values()]
        common = folders[0][: common_start(*folders)] if folders else []
        tops.append("".join(f"{part}/" for part in common))
    short, long = sorted(tops, key=len)
    if not long.startswith(short):
        return sides
    return [
        {file: short + key[len(top) :] for file, key in side.items()}
        for side, top in zip(sides, tops, strict=True)
    ]


def affixes(rule):
    """Return what stands before and after NAME in the two halves of a rule PICTURE=MASK."""
    return [half.partition("NAME")[::2] for half in rule.partition("=")[::2]]


def name_in(key, affix):
    """Return the name in a path without extension, its folders before it; None if it has none.

    affix: what stands before and after the name in the last part of the path.
    """
    folder, slash, stem = key.rpartition("/")
    before, after = affix
    if stem.startswith(before) and stem.endswith(after) and len(stem) > len(before + after):
        return folder + slash + stem[len(before) : len(stem) - len(after)]
    return None


def names_in_mask(key, affix, unite):
    """Return the names of the pictures that a mask may belong to, the likeliest first.

    key, affix: as in `name_in`. With `unite` a number or any more may follow, as in a_mask_1 or
    a_mask2, and a folder may be named as the picture.
    """
    more = re.finditer(r"(?=[\W_])|(?<!\d)(?=\d+$)", key) if unite else ()
    ends = [len(key), *sorted((found.start() for found in more), reverse=True)]
    return [name for at in ends if (name := name_in(key[:at], affix))]


def unpaired(pictures, masks, alone, left, convention):
    """Return the InputError for the files without a partner, pictures `alone`, and masks `left`.

    pictures, masks: the paths of all by file, see `pair_files`. It names a file of each, and the
    flag that would give them a partner, if there is one.
    """
    suffix = convention.names.removeprefix("NAME=NAME")
    wanted = f"name by {suffix}" if suffix == convention.names else f"same name and {suffix!r}"
    wanted = wanted if suffix else "same name"
    these, problem = (alone, "has no mask") if alone else (left, "has no picture")
    line = f"{these[0]}: {problem} of the {wanted}{in_all(len(these))}"
    picture_affix, mask_affix = affixes(convention.names)
    of_name = {name_in(key, picture_affix): file for file, key in pictures.items()}
    parts = left or alone  # which in one folder for both may be masks, though not by their names
    names = names_in_mask((pictures | masks)[parts[0]], mask_affix, True)
    whole = next((of_name[name] for name in names if name in of_name), None)
    if whole and whole not in alone and not convention.unite:
        problem = "has no picture" if left else "has no mask"
        return InputError(
            f"{parts[0]}: {problem} of the {wanted}{in_all(len(parts))}; if it is one of several"
            f" masks of {whole}, add --mask-unite"
        )
    if rule := best_rule(pictures, masks, alone, left, convention.names):
        first, affix = name_in(pictures[alone[0]], affixes(rule)[0]), affixes(rule)[1]
        mask = next((file for file in left if name_in(masks[file], affix) == first), left[0])
        suffix = rule.removeprefix("NAME=NAME")
        flag = ["--mask-names", rule] if suffix == rule else ["--mask-suffix", suffix]
        return InputError(f"{line}; if {mask.name} is it, add {shlex.join(flag)}")
    if not left:
        line += "; add its mask, or if it shows no polyp, move it to a folder for --normals"
    return InputError(line + (f"; {left[0]} has no picture" if alone and left else ""))


def paired_by(rule, pictures, masks):
    """Return how many pictures have a mask by a rule, see `affixes`."""
    sides = zip((pictures, masks), affixes(rule), strict=True)
    names = [{name_in(key, affix) for key in side.values()} - {None} for side, affix in sides]
    return len(names[0] & names[1])


def best_rule(pictures, masks, alone, left, rule):
    """Return the rule, see `affixes`, that gives most of all pictures a mask.

    The rules tried are what the first names of those without a partner have in common. None if the
    best gives fewer than half of the pictures a mask, or no more than `rule`, the present one.
    """
    rules = Counter()
    for file in alone[:20]:
        stem = pictures[file].rpartition("/")[2]
        for other in left[:2000]:
            rules.update(rules_between(stem, masks[other].rpartition("/")[2]))
    likely = [rule for rule, _ in rules.most_common(100)]
    best = max(likely, key=lambda rule: paired_by(rule, pictures, masks), default=rule)
    paired = paired_by(best, pictures, masks)
    more = paired > paired_by(rule, pictures, masks) and paired >= len(pictures) / 2
    return best if more else None


def rules_between(picture, mask):
    """Return a set of the rules, see `affixes`, by which a mask belongs to a picture; their stems.

    One is the other with more around it, or they begin or end alike, up to a sign between words.
    """
    if picture in mask:
        before, _, after = mask.partition(picture)
        last_before, _, last_after = mask.rpartition(picture)
        return {f"NAME={before}NAME{after}", f"NAME={last_before}NAME{last_after}"}
    if mask in picture:
        before, _, after = picture.partition(mask)
        return {f"{before}NAME{after}=NAME"}
    rules = set()
    start, end = common_start(picture, mask), common_start(picture[::-1], mask[::-1])
    word_end = r"[\W_]+[^\W_]*$"
    start = len(re.sub(word_end, "", picture[:start]))
    end = len(re.sub(word_end, "", picture[::-1][:end]))
    if start:
        rules.add(f"NAME{picture[start:]}=NAME{mask[start:]}")
    if end:
        rules.add(f"{picture[:-end]}NAME={mask[:-end]}NAME")
    return rules


def common_start(*sequences):
    """Return how many of their first items sequences have in common."""
    alike = (len(set(items)) == 1 for items in zip(*sequences, strict=False))
    return sum(itertools.takewhile(bool, alike))


def group_by_folder(names, by_folder=True):
    """Return (n,) int, the same for pictures of one folder, and lines on what folders mean.

    names: with the folders in which the pictures lie. All are UNKNOWN if folders are no scenes: too
    few of them, not around all pictures, or parts of a data set, such as train/. They are UNKNOWN,
    without a line, if scenes are not to be told `by_folder`.
    """
    unknown = np.full(len(names), UNKNOWN)
    if not by_folder:
        return unknown, []
    folders, lines = [name.split("/")[:-1] for name in names], []
    splits = {part for parts in folders for part in parts if SPLIT_FOLDER.fullmatch(part)}
    if len(splits) > 1:
        splits = sorted(splits)
        lines.append(f"takes {', '.join(splits)} together; prepare one alone to keep them apart")
    scenes = ["/".join(part for part in parts if part not in splits) for parts in folders]
    found = len(set(scenes))
    if all(scenes) and found >= MIN_FOLDERS:
        lines.append(
            f"each of {found:,} folders counts as a scene, which no split parts; docs/data.md"
            " says how to change that"
        )
        return np.unique(scenes, return_inverse=True)[1], lines
    if found > 1:
        lines.append("its folders are too few, or not around all pictures, to count as scenes")
    return unknown, lines
