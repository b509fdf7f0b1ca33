"What pip needs to know, read from settings.ini; pyproject.toml is written by nbdev_export and calls all of this dynamic."
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(HERE / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

STATUS = {"1": "1 - Planning", "2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
EXTRAS = {name: cfg[f"{name}_requirements"].split() for name in ("lab", "ssl", "app", "scale", "mlflow", "encoders", "compare", "docs", "dev")}
EXTRAS["dev"] += [library for name in ("lab", "ssl", "scale", "mlflow") for library in EXTRAS[name]]  # what `make test` tries


class BuildWithLabs(build_py):
    "Puts nbs/labs into the built package, so that `latentlab lab` works without the repository and git holds one copy of each lab."

    def labs(self) -> dict[str, str]:
        "Built file -> notebook it is a copy of. An editable install reads nbs/labs itself."
        if self.editable_mode: return {}
        folder = Path(self.build_lib) / cfg["lib_name"] / "labs"
        return {str(folder / lab.name): str(lab.relative_to(Path.cwd())) for lab in sorted(Path.cwd().glob("nbs/labs/*.ipynb"))}

    def run(self) -> None:
        super().run()
        shutil.rmtree(Path(self.build_lib) / cfg["lib_name"] / "labs", ignore_errors=True)
        for built, lab in self.labs().items():
            self.mkpath(str(Path(built).parent))
            self.copy_file(lab, built)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + list(self.labs())

    def get_output_mapping(self) -> dict[str, str]:
        return super().get_output_mapping() | self.labs()

    def get_source_files(self) -> list[str]:
        return super().get_source_files() + list(self.labs().values())


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=cfg["keywords"].split(),
    url=cfg["git_url"],
    project_urls={"Source": cfg["git_url"], "Documentation": cfg["doc_host"] + cfg["doc_baseurl"]},
    classifiers=[
        f"Development Status :: {STATUS[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        "Framework :: Jupyter :: JupyterLab",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require=EXTRAS,
    packages=find_packages(include=[cfg["lib_name"], cfg["lib_name"] + ".*"]),
    package_data={cfg["lib_name"]: ["py.typed", "weights/*.safetensors", "bundled/*", "panels/static/*", "journal/templates/*"]},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    cmdclass={"build_py": BuildWithLabs},
    zip_safe=False,
)
