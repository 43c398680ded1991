"""What models are told when they write prompts for a persona, answer them, or relax one of their constraints.

The tasks are those of Tülu 3 (arXiv 2411.15124, section on persona-driven data); every text here is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from evalsuite.types import Sampling
from train_plugins.data.asking import seed_of
from train_plugins.data.persona_constraints import Dice, Drawn, draw_constraints

Skill = Literal["math", "grade_math", "algebra", "code", "instruction_following", "if_pairs"]
SKILLS: tuple[Skill, ...] = get_args(Skill)
CONSTRAINED = ("instruction_following", "if_pairs")

# What a reply with a prompt must begin with: a reply without it is chatter, or a solution.
PREFIX: dict[Skill, str] = {
    "math": "Math problem:",
    "grade_math": "Math problem:",
    "algebra": "Math problem:",
    "code": "Question:",
    "instruction_following": "User instruction:",
    "if_pairs": "User instruction:",
}
# Of Tülu 3: 0.7 for all, top_p 0.95 for instructions, at most 1,024 tokens for math and code.
USUAL: dict[Skill, Sampling] = {
    skill: Sampling(2048 if skill in CONSTRAINED else 1024, temperature=0.7, top_p=0.95 if skill in CONSTRAINED else 1)
    for skill in SKILLS
}

MATH = """Make up one hard problem of mathematics that the person below could meet in their work, their home or their \
interests.

Person: {persona}

It needs real reasoning, as at a competition or in the first years of university, and knowledge of the person's world \
helps to understand it, not to solve it. It asks one question, or two that belong together, and has one definite \
answer. All quantities that are needed are stated. Give neither a solution nor a hint.
Begin your reply with "Math problem:" and write nothing but the problem after it."""

GRADE_MATH = """Make up one word problem of the kind that children of ten to twelve years solve, in a setting that the \
person below would know well.

Person: {persona}

It takes two to eight steps of adding, subtracting, multiplying and dividing, states all the numbers that are needed, \
and asks for one number. Give neither a solution nor a hint.
Begin your reply with "Math problem:" and write nothing but the problem after it."""

ALGEBRA = """Make up one problem of intermediate algebra that touches the world of the person below.

Person: {persona}

It is about equations, inequalities, polynomials, functions, sequences, exponents or logarithms as they are taught in \
the last years of school, states all that is needed, and has one definite answer. Give neither a solution nor a hint.
Begin your reply with "Math problem:" and write nothing but the problem after it."""

CODE = """Make up one programming question in Python that the person below might ask, or that comes from their world.

Person: {persona}

One function solves it, with the standard library alone; a beginner or somebody with a year of practice can write it. \
Say what the function is called, what it takes and what it returns. If you can give an example, put it on a last line \
of the form
Example: name(arguments) == result
with plain Python values for arguments and result. Give no solution.
Begin your reply with "Question:" and write nothing but the question after it."""

INSTRUCTION = """Make up one instruction that the person below would give to an assistant, about something that \
matters to them.

Person: {persona}

The answer to it must meet {n}, so the instruction has to ask for {them}:
{constraints}

State them in the words of the person, but keep every number, every word in quotation marks and every marker exactly \
as it is, and add no other demand of this kind. {layout} Give no answer.

Here is how it looks for somebody else, a librarian, with the constraints "Write less than 80 words." and "Do not use \
any commas.":
User instruction: Tell my reading club why we should read a book about tides next month.
Please keep it to less than 80 words and get by without commas since I will read it out in one breath.

Begin your reply with "User instruction:" and write nothing but the instruction after it."""

ONE_LINE = "What the person wants comes first, on one line of its own; the constraints follow on the lines after it."
FREELY = "What the person wants and the constraints can stand in any order."

RELAX = """Here is an instruction that somebody gave to an assistant:

{prompt}

Among other things it demands this: {constraint}
Rewrite the instruction so that this demand is relaxed: it asks for clearly less, or for something near it that does \
not meet the demand any more. Everything else stays word for word as it is.
Begin your reply with "User instruction:" and write nothing but the new instruction after it."""

SOLVE = """Solve this problem step by step, with a reason for each step.

{prompt}

End with a line of exactly this form, where ANSWER is the final result:
Final Answer: The final answer is $ANSWER$. I hope it is correct."""

SOLVE_GRADE = """Solve this problem step by step, in words that a child of eleven follows.

{prompt}

End with a line that holds four number signs, a space and the final number alone, without a unit: #### 42"""

PROGRAM = """{prompt}

Answer with one Python function and the imports that it needs, in one block that begins with ```python and ends with \
```. No example calls, no tests, no other text."""


@dataclass(frozen=True, slots=True)
class Task:
    """One row to be made: the `number`-th of its skill, for a persona."""

    skill: Skill
    number: int
    persona: str
    constraints: tuple[Drawn, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.skill}/{self.number}"


def plan_tasks(skill: Skill, count: int, personas: tuple[str, ...], seed: int) -> tuple[Task, ...]:
    """So many tasks. Personas come in an order of their own for every skill and seed, and again where they run out."""
    order = sorted(personas, key=lambda persona: seed_of(seed, skill, persona))
    tasks = []
    for number in range(count):
        persona = order[number % len(order)]
        drawn: tuple[Drawn, ...] = ()
        if skill in CONSTRAINED:
            drawn = draw_constraints(Dice(seed, skill, number, persona), 2 if skill == "if_pairs" else 1)
        tasks.append(Task(skill, number, persona, drawn))
    return tuple(tasks)


def ask_prompt(task: Task) -> str:
    """What a model is told so that it writes the prompt of a task."""
    if task.skill not in CONSTRAINED:
        words = {"math": MATH, "grade_math": GRADE_MATH, "algebra": ALGEBRA, "code": CODE}[task.skill]
        return words.format(persona=task.persona)
    lines = "\n".join(f"- {one.words}" for one in task.constraints)
    n = len(task.constraints)
    own_line = any("first line" in one.marks for one in task.constraints)
    return INSTRUCTION.format(
        persona=task.persona,
        n="one constraint" if n == 1 else f"{n} constraints",
        them="it" if n == 1 else "them",
        constraints=lines,
        layout=ONE_LINE if own_line else FREELY,
    )


def ask_answer(skill: Skill, prompt: str) -> str:
    """What a model is told so that it answers a prompt. An instruction says itself how it is to be answered."""
    words = {"math": SOLVE, "algebra": SOLVE, "grade_math": SOLVE_GRADE, "code": PROGRAM}.get(skill, "{prompt}")
    return words.replace("{prompt}", prompt)


def relaxed(task: Task, seed: int) -> Drawn:
    """The constraint of a pair that the rejected answer need not meet."""
    return Dice(seed, task.key, task.persona, "relaxed").pick(task.constraints)


def ask_relaxed(prompt: str, constraint: Drawn) -> str:
    """What a model is told so that it relaxes one constraint of a prompt."""
    return RELAX.replace("{constraint}", constraint.words).replace("{prompt}", prompt)
